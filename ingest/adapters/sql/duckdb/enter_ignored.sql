-- enter_ignored.sql: files that are dealt with by not loading them.
-- in: ignored (Arrow: a column for each that is told).
INSERT INTO ledger BY NAME
SELECT *, nextval('file_numbers') AS file_no FROM ignored
