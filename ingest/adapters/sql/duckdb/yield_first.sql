-- yield_first.sql: rows that were the first of their fact until this load brought one with a smaller position.
-- in: repeated_facts, $first_file_no of this load.
UPDATE command_rows
SET is_first = FALSE
FROM repeated_facts AS r
WHERE command_rows.command_id = r.command_id
  AND r.is_here
  AND NOT r.here_is_first
  AND command_rows.file_no < $first_file_no
  AND command_rows.is_first
