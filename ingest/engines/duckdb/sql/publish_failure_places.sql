-- publish_failure_places.sql: which rules the lines of a file break at which place, each line once, since counting takes
-- longer than a page may.
CREATE TABLE published.failure_places AS
WITH broken AS (
    SELECT rowid AS row, file_no, file_id, line, redriven_by IS NULL AS is_open, unnest(rules) AS rule
    FROM published.failed_lines
)
SELECT
    file_no, file_id, rule.code AS code, coalesce(rule.pointer, '') AS pointer,
    arg_min(rule.message, (line, row)) AS message,
    count(DISTINCT row) AS lines, count(DISTINCT row) FILTER (is_open) AS open, min(line) AS first_line
FROM broken
GROUP BY ALL
ORDER BY file_no, code, lines DESC, pointer
