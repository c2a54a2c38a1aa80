-- failed_lines_of_file.sql: the failed lines of one file, in order.
-- in: the variable file_id.   out: as the view failed_lines, and `context`.
SELECT l.file_id, f.* EXCLUDE (file_no)
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no)
WHERE l.file_id = getvariable('file_id')
ORDER BY f.line, f.item
