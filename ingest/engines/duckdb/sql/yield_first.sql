-- yield_first.sql: rows that were the first of their fact until this load brings one with a smaller position.
-- in: repeated_facts, of rows that are not inserted yet.
UPDATE command_rows
SET is_first = FALSE
FROM repeated_facts AS r
WHERE command_rows.command_id = r.command_id
  AND r.is_here
  AND NOT r.here_is_first
  AND command_rows.is_first
