-- enter_file.sql: the ledger row of a file that was dealt with, whatever came of it.
-- in: entries (Arrow: a column for each that is told).
INSERT OR REPLACE INTO ledger BY NAME SELECT * FROM entries
