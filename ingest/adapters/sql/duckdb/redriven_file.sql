-- redriven_file.sql: a file whose failed lines can be mended.
-- in: $file_id.   out: file_no; is_unloaded (it was rejected, and no redrive has brought what is right of it); open_lines.
SELECT
    file_no,
    state = 'rejected' AND NOT EXISTS (
        SELECT 1 FROM ledger AS r WHERE r.redrive_of = l.file_id AND r.state = 'loaded'
    ) AS is_unloaded,
    (SELECT count(*) FROM failed_line_rows AS f WHERE f.file_no = l.file_no AND f.redriven_by IS NULL) AS open_lines
FROM ledger AS l
WHERE file_id = $file_id AND state IN ('loaded', 'rejected')
