-- publish_lengths.sql: how long the texts of some failed lines are. The caller adds WHERE with the rows as plain numbers.
INSERT INTO lengths
SELECT
    f.rowid AS row,
    octet_length(raw) + strlen(failures::VARCHAR) + coalesce(octet_length(context), 0) AS bytes
FROM warehouse.failed_line_rows AS f
