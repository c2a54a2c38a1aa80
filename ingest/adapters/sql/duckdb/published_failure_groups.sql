-- published_failure_groups.sql: failed lines of some files by the rules they break, each line once in a group.
-- in: wanted (Arrow: file_id).   out: code, pointer, message, lines, open, first_line.
WITH broken AS (
    SELECT rowid AS row, line, redriven_by IS NULL AS is_open, unnest(rules) AS rule
    FROM published.failed_lines
    WHERE file_id IN (SELECT file_id FROM wanted)
)
SELECT
    rule.code AS code, coalesce(rule.pointer, '') AS pointer, arg_min(rule.message, (line, row)) AS message,
    count(DISTINCT row) AS lines, count(DISTINCT row) FILTER (is_open) AS open, min(line) AS first_line
FROM broken
GROUP BY ALL
ORDER BY lines DESC, code, pointer
