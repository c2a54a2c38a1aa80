-- open_failures.sql: where open failed lines with a code are, newest file first, some MB of them at a time.
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
