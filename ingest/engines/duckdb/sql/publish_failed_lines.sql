-- publish_failed_lines.sql: some failed lines. The caller adds WHERE with the rows as plain numbers, and puts TRUE in place
-- of {texts} where their texts are copied: `raw`, `failures` (with what it says of rules as a column: a page groups a
-- file's lines by them) and `context`. Else they are NULL.
INSERT INTO published.failed_lines
SELECT
    f.file_no, l.file_id, f.line, f.item, f.byte_offset, f.byte_length, CASE WHEN {texts} THEN f.raw END AS raw,
    CASE WHEN {texts} THEN f.raw_sha256 END AS raw_sha256, f.mendable, f.codes,
    CASE WHEN {texts} THEN f.failures END AS failures, f.redriven_at, f.redriven_by,
    CASE WHEN {texts} THEN f.context END AS context,
    CASE WHEN {texts} THEN from_json(f.failures, '[{"code": "VARCHAR", "pointer": "VARCHAR", "message": "VARCHAR"}]') END
        AS rules,
    CASE WHEN {texts} THEN octet_length(f.raw) + strlen(f.failures::VARCHAR) + coalesce(octet_length(f.context), 0) END
        AS text_bytes
FROM warehouse.failed_line_rows AS f
JOIN warehouse.ledger AS l ON l.file_no = f.file_no
