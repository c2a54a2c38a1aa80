-- published_open_lines.sql: where the open lines of a file are that can be mended, and whose texts are here, some MB of
-- them at a time.
-- in: $file_id.   out: rows (in order of line, item), in that order.
WITH chosen AS (
    SELECT
        rowid AS row, line, item,
        sum(text_bytes + 500) OVER (ORDER BY line, item ROWS UNBOUNDED PRECEDING) // 2000000 AS part
    FROM published.failed_lines
    WHERE file_id = $file_id AND mendable AND redriven_by IS NULL AND text_bytes IS NOT NULL
)
SELECT list(row ORDER BY line, item) AS rows
FROM chosen
GROUP BY part
ORDER BY part
