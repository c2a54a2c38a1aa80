-- publish_candidates.sql: the first failed lines of each file whose texts may be copied, as far as their lengths tell. Those
-- that are mended come last: who mends what is shown is shown the next.
-- in: $most (bytes of one file).
CREATE TEMP TABLE candidates AS
WITH line AS (
    SELECT
        rowid AS row, file_no, redriven_by IS NOT NULL AS is_mended, line, item,
        500 + CASE WHEN mendable THEN byte_length ELSE least(byte_length, 65536) END AS bytes -- not kept whole: its beginning
    FROM warehouse.failed_line_rows
),
large AS (SELECT file_no FROM line GROUP BY file_no HAVING sum(bytes) > $most)
SELECT row, file_no, is_mended, line, item, bytes FROM line ANTI JOIN large USING (file_no)
UNION ALL
SELECT row, file_no, is_mended, line, item, bytes
FROM line SEMI JOIN large USING (file_no)
QUALIFY sum(bytes) OVER (PARTITION BY file_no ORDER BY is_mended, line, item ROWS UNBOUNDED PRECEDING) <= $most
