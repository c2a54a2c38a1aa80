-- insert_failed.sql: the failed lines of a load, of rejected files too.
-- in: staged_failed (Parquet), entered (every file of this load whose lines are kept).
INSERT INTO failed_line_rows
SELECT
    e.file_no, s.line, s.item, s.byte_offset, s.byte_length, s.raw, s.raw_sha256, s.mendable, s.codes, s.failures,
    NULL, NULL, s.context
FROM staged_failed AS s
JOIN entered AS e USING (staged_no)
