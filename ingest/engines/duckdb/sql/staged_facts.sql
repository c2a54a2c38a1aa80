-- staged_facts.sql: the identities of what this load would add, and where each stands.
-- in: staged_commands.   out: `is_timeless`: its identity is not what it says (["only", …]), so neither is its time.
CREATE OR REPLACE TEMP TABLE staged_facts AS
SELECT
    command_id, staged_no, place, occurred_at, coalesce(identity >= '["only"' AND identity < '["only#', FALSE) AS is_timeless
FROM staged_commands
