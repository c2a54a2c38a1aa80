-- read.sql: what commands ask for.

-- name: archives
-- where archived objects should be, by the folder of their day; those outside of one by their keys.
-- out: source, bucket, folder.
SELECT DISTINCT
    source, bucket, regexp_replace(archived_to, '^(.*?/?\d{4}/\d{2}/\d{2}/)[\s\S]*$', '\1') AS folder
FROM ledger
WHERE archived_to IS NOT NULL
ORDER BY source, bucket, folder

-- name: failed_lines_of_file
-- the failed lines of one file, in order.
-- The caller puts an id in place of {file_id}.   out: as the view failed_lines, and `context`.
SELECT
    l.file_id, f.line, f.item, f.byte_offset, f.byte_length, f.raw, f.raw_sha256, f.mendable, f.codes, f.failures,
    f.redriven_at, f.redriven_by, f.context
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no)
WHERE l.file_id = {file_id}
ORDER BY f.line, f.item

-- name: open_failures_by_code
-- open failed lines over all files, by code, those with most lines first.
-- in: $source, $since, $code, each NULL for any.   out: code, open, files, and of the newest file id, bucket, key, format.
WITH broken AS (
    SELECT file_no, unnest(codes) AS code FROM failed_line_rows WHERE redriven_by IS NULL
),
by_file AS (
    SELECT file_no, code, count(*) AS open
    FROM broken
    WHERE $code::text IS NULL OR code = $code::text
    GROUP BY file_no, code
),
wanted AS (
    SELECT
        b.code, b.open, l.file_id, l.bucket, l.key, l.format,
        row_number() OVER (PARTITION BY b.code ORDER BY l.file_no DESC) AS place
    FROM by_file AS b
    JOIN ledger AS l USING (file_no)
    WHERE l.state IN ('loaded', 'rejected') -- of others no line can be sent again
      AND ($source::text IS NULL OR l.source = $source::text)
      AND ($since::timestamptz IS NULL OR coalesce(l.loaded_at, l.last_modified) >= $since::timestamptz)
)
SELECT
    code, sum(open)::bigint AS open, count(*) AS files, min(file_id) FILTER (WHERE place = 1) AS file_id,
    min(bucket) FILTER (WHERE place = 1) AS bucket, min(key) FILTER (WHERE place = 1) AS key,
    min(format) FILTER (WHERE place = 1) AS format
FROM wanted
GROUP BY code
ORDER BY open DESC, code
