-- published_open_among.sql: which of some places of a file are open, and whether their texts are here.
-- in: wanted (Arrow: line, item), $file_id.   out: line, item, has_text.
SELECT line, item, text_bytes IS NOT NULL AS has_text
FROM published.failed_lines
SEMI JOIN wanted USING (line, item)
WHERE file_id = $file_id AND redriven_by IS NULL
