-- publish_failure_codes.sql: how many lines of a file break which rule, wherever.
CREATE TABLE published.failure_codes AS
SELECT
    file_no, file_id, code, count(*) AS lines, count(*) FILTER (is_open) AS open, min(line) AS first_line
FROM (SELECT file_no, file_id, line, redriven_by IS NULL AS is_open, unnest(codes) AS code FROM published.failed_lines)
GROUP BY ALL
ORDER BY file_no, code
