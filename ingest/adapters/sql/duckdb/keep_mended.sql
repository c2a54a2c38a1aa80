-- keep_mended.sql: failed lines that come again, as they were, stay mended.
-- in: mended (Arrow: line, item, raw_sha256, redriven_at, redriven_by), $file_no of the new rows.   out: line, item.
UPDATE failed_line_rows
SET redriven_at = m.redriven_at, redriven_by = m.redriven_by
FROM mended AS m
WHERE failed_line_rows.file_no = $file_no
  AND failed_line_rows.line = m.line
  AND failed_line_rows.item = m.item
  AND failed_line_rows.raw_sha256 = m.raw_sha256
RETURNING failed_line_rows.line, failed_line_rows.item
