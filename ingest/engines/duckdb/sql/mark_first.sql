-- mark_first.sql: of each of these facts the row with the smallest position is the first, and no other.
-- in: wrong_first.
UPDATE command_rows
SET is_first = (command_rows.rowid = w.row_no)
FROM wrong_first AS w
WHERE command_rows.command_id = w.command_id
