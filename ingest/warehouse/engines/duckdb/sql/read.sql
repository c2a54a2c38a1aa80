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

-- name: open_lines
-- those of a part. The caller puts rows as plain numbers in place of {rows}: then the engine decompresses long lines of
-- these only.
SELECT l.file_id, l.source, l.bucket, l.key, l.format, f.* EXCLUDE (file_no)
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no)
WHERE f.rowid IN ({rows})
ORDER BY f.file_no DESC, f.line, f.item
