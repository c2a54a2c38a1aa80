-- lost_facts.sql: facts whose first row is about to go.
-- in: leaving (Arrow: file_no).   out: temp table lost_facts; `is_timeless`: see staged_facts.sql.
CREATE OR REPLACE TEMP TABLE lost_facts AS
SELECT
    command_id, occurred_at, coalesce(identity >= '["only"' AND identity < '["only#', FALSE) AS is_timeless
FROM command_rows
SEMI JOIN leaving USING (file_no)
WHERE is_first
