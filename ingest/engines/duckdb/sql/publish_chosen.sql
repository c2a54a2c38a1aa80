-- publish_chosen.sql: the first failed lines of each file, as many as are copied with their texts.
-- in: $most (bytes of one file).
CREATE TEMP TABLE chosen AS
WITH large AS (SELECT file_no FROM candidates JOIN lengths USING (row) GROUP BY file_no HAVING sum(lengths.bytes) > $most)
SELECT row, lengths.bytes FROM candidates JOIN lengths USING (row) ANTI JOIN large USING (file_no)
UNION ALL
SELECT row, lengths.bytes
FROM candidates JOIN lengths USING (row) SEMI JOIN large USING (file_no)
QUALIFY sum(lengths.bytes) OVER (PARTITION BY file_no ORDER BY is_mended, line, item ROWS UNBOUNDED PRECEDING) <= $most
