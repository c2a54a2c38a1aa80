-- publish_parts.sql: runs of failed lines that are all among those of a table, or all not, each of some MB.
-- The caller puts the table (row, bytes) in place of {among}.
-- in: $at_once (bytes).   out: first, last (rows), is_among.
WITH line AS (
    SELECT l.rowid AS row, a.row IS NOT NULL AS is_among, coalesce(a.bytes, 0) AS bytes
    FROM warehouse.failed_line_rows AS l
    LEFT JOIN {among} AS a ON a.row = l.rowid
),
turned AS (
    SELECT *, coalesce(is_among <> lag(is_among) OVER (ORDER BY row), FALSE)::INTEGER AS turn FROM line
),
part AS (
    SELECT
        row, is_among, sum(turn) OVER so_far AS run, sum(bytes) OVER so_far // $at_once AS part
    FROM turned
    WINDOW so_far AS (ORDER BY row ROWS UNBOUNDED PRECEDING)
)
SELECT min(row) AS first, max(row) AS last, is_among
FROM part
GROUP BY run, part, is_among
ORDER BY first
