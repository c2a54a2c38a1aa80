-- published_rows.sql: some rows of the published ledger, whole.
-- in: wanted (Arrow: row).
SELECT rowid AS row, * EXCLUDE (id_hash, natural_key, of_file_no) FROM published.ledger WHERE rowid IN (SELECT row FROM wanted)
