-- publish_failed_lines.sql: failed lines, with what `failures` says of rules as columns: a page groups a file's by them.
CREATE TABLE published.failed_lines AS
SELECT
    f.file_no, l.file_id, f.* EXCLUDE (file_no),
    from_json(f.failures, '[{"code": "VARCHAR", "pointer": "VARCHAR", "message": "VARCHAR"}]') AS rules
FROM warehouse.failed_line_rows AS f
JOIN (
    SELECT file_no, file_id FROM warehouse.ledger SEMI JOIN warehouse.failed_line_rows USING (file_no)
) AS l USING (file_no)
