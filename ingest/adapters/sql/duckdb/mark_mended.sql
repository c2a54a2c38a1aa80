-- mark_mended.sql: failed lines that a redrive mends.
-- in: mended (Arrow: line, item), $file_no of the original, $by (file_id of the redrive), $at.   out: how many were open.
UPDATE failed_line_rows
SET redriven_at = $at, redriven_by = $by
FROM mended AS m
WHERE failed_line_rows.file_no = $file_no
  AND failed_line_rows.line = m.line
  AND failed_line_rows.item = m.item
  AND failed_line_rows.redriven_by IS NULL
