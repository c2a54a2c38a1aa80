-- read.sql: what commands ask for.

-- name: untidied
-- loaded files of a source, and copies, whose objects are still in the landing: some, the newest first.
-- in: $source, $bucket, $prefix, $step (archive; copy: not archived yet; delete: see `Warehouse.untidied`),
-- $file_ids (NULL: any whose bytes were read as they were listed), $before (a file_no, or NULL), $limit.
WITH due AS (
    SELECT file_no
    FROM ledger
    WHERE source = $source AND bucket = $bucket AND starts_with(key, $prefix)
      AND state IN ('loaded', 'duplicate') AND deleted_at IS NULL AND redrive_of IS NULL
      AND ($step <> 'copy' OR archived_to IS NULL)
      AND CASE
          WHEN $file_ids IS NULL THEN coalesce(read_bytes, size_bytes) = size_bytes
          ELSE file_id IN (SELECT unnest($file_ids))
      END
      AND ($before IS NULL OR file_no < $before)
),
failed AS (
    SELECT
        file_no, count(*) FILTER (redriven_by IS NULL) AS open_failures, bool_or(redriven_by IS NOT NULL) AS some_mended
    FROM failed_line_rows
    WHERE file_no IN (SELECT file_no FROM due)
    GROUP BY file_no
),
page AS (
    SELECT d.file_no, coalesce(f.open_failures, 0) AS open_failures
    FROM due AS d
    LEFT JOIN failed AS f USING (file_no)
    WHERE $step <> 'delete' OR coalesce(f.open_failures = 0 OR f.some_mended, TRUE)
    ORDER BY d.file_no DESC
    LIMIT $limit
)
SELECT l.*, p.open_failures
FROM page AS p
JOIN ledger AS l USING (file_no)
ORDER BY l.file_no DESC

-- name: archives
-- where archived objects should be, by the folder of their day.
-- out: source, bucket, folder.
SELECT DISTINCT
    source, bucket,
    coalesce(nullif(regexp_extract(archived_to, '^.*?/?\d{4}/\d{2}/\d{2}/'), ''), archived_to) AS folder
FROM ledger
WHERE archived_to IS NOT NULL
ORDER BY ALL

-- name: failed_lines_of_file
-- the failed lines of one file, in order.
-- in: the variable file_id.   out: as the view failed_lines, and `context`.
SELECT l.file_id, f.* EXCLUDE (file_no)
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no)
WHERE l.file_id = getvariable('file_id')
ORDER BY f.line, f.item

-- name: open_failures_by_code
-- open failed lines over all files, by code, those with most lines first.
-- in: $source, $since, $code, each NULL for any.   out: code, open, files, and of the newest file id, bucket, key, format.
WITH wanted AS (
    SELECT file_no, file_id, bucket, key, format
    FROM ledger
    WHERE
        state IN ('loaded', 'rejected') -- of others no line can be sent again
        AND ($source IS NULL OR source = $source) AND ($since IS NULL OR coalesce(loaded_at, last_modified) >= $since)
),
broken AS (
    SELECT file_no, unnest(codes) AS code FROM failed_line_rows WHERE redriven_by IS NULL
),
by_file AS (
    SELECT file_no, code, count(*) AS open FROM broken WHERE $code IS NULL OR code = $code GROUP BY ALL
)
SELECT
    code, sum(open)::BIGINT AS open, count(*) AS files, arg_max(file_id, file_no) AS file_id,
    arg_max(bucket, file_no) AS bucket, arg_max(key, file_no) AS key, arg_max(format, file_no) AS format
FROM by_file
JOIN wanted USING (file_no)
GROUP BY code
ORDER BY open DESC, code

-- name: open_failures
-- where open failed lines with a code are, newest file first, some MB of them at a time.
-- in: $code, $limit; $source, $since, each NULL for any.   out: rowids of a part, in no order; the parts in theirs.
WITH chosen AS (
    SELECT
        f.rowid AS row, f.file_no, f.line, f.item,
        CASE WHEN f.mendable THEN f.byte_length ELSE least(f.byte_length, 65536) END + 2000 AS size_bytes
    FROM failed_line_rows AS f
    JOIN ledger AS l USING (file_no)
    WHERE
        f.redriven_by IS NULL AND l.state IN ('loaded', 'rejected') AND list_contains(f.codes, $code) AND ($source IS NULL OR l.source = $source)
        AND ($since IS NULL OR coalesce(l.loaded_at, l.last_modified) >= $since)
    ORDER BY f.file_no DESC, f.line, f.item
    LIMIT $limit
)
SELECT list(row) AS rows
FROM (
    SELECT
        row,
        sum(size_bytes) OVER (ORDER BY file_no DESC, line, item ROWS UNBOUNDED PRECEDING) // 8000000 AS part
    FROM chosen
)
GROUP BY part
ORDER BY part
