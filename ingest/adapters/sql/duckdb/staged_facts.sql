-- staged_facts.sql: the identities of what this load would add, and where each stands.
-- in: staged_commands.
CREATE OR REPLACE TEMP TABLE staged_facts AS
SELECT command_id, staged_no, place, occurred_at FROM staged_commands
