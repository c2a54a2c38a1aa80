-- mark_mended.sql: failed lines that redrives mend.
-- in: marks (Arrow: file_no, line, item, redriven_at, redriven_by (file_id of the redrive)).
UPDATE failed_line_rows
SET redriven_at = m.redriven_at, redriven_by = m.redriven_by
FROM marks AS m
WHERE failed_line_rows.file_no = m.file_no AND failed_line_rows.line = m.line AND failed_line_rows.item = m.item
