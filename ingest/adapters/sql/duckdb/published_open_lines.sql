-- published_open_lines.sql: where the open lines of a file are that can be mended, some MB of them at a time.
-- in: $file_id.   out: rows (in order of line, item), in that order.
WITH chosen AS (
    SELECT
        rowid AS row, line, item,
        -- A row is counted with what stands beside its line.
        sum(byte_length + 2000) OVER (ORDER BY line, item ROWS UNBOUNDED PRECEDING) // 8000000 AS part
    FROM published.failed_lines
    WHERE file_id = $file_id AND mendable AND redriven_by IS NULL
)
SELECT list(row ORDER BY line, item) AS rows
FROM chosen
GROUP BY part
ORDER BY part
