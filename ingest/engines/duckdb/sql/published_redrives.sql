-- published_redrives.sql: the redrives of some files, newest first.
-- in: wanted (Arrow: file_no).   out: row.
SELECT rowid
FROM published.ledger
WHERE of_file_no IN (SELECT file_no FROM wanted) AND file_no <> of_file_no
ORDER BY file_no DESC
