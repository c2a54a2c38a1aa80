-- staged_facts.sql: the identities of what this load would add, and where each stands.
-- in: staged_commands (Parquet), taken (the files of this load).
CREATE OR REPLACE TEMP TABLE staged_facts AS
SELECT s.command_id, s.staged_no, s.line, s.item, s.occurred_at
FROM staged_commands AS s
SEMI JOIN taken AS t USING (staged_no)
