-- other_rows.sql: of facts whose first row is about to go, the rows that stay.
-- Equal facts have equal times, so only those times need looking at; but for the timeless, see repeated_facts.sql.
-- in: lost_facts, leaving (Arrow: file_no).   out: temp table other_rows.
CREATE OR REPLACE TEMP TABLE other_rows AS
SELECT c.command_id, c.file_no, c.line, c.item_no, c.rowid AS row_no
FROM command_rows AS c
ANTI JOIN leaving USING (file_no)
WHERE c.occurred_at >= (SELECT min(occurred_at) FROM lost_facts)
  AND c.occurred_at <= (SELECT max(occurred_at) FROM lost_facts)
  AND c.command_id IN (SELECT command_id FROM lost_facts)
UNION ALL
SELECT c.command_id, c.file_no, c.line, c.item_no, c.rowid AS row_no
FROM command_rows AS c
ANTI JOIN leaving USING (file_no)
WHERE c.identity >= '["only"' AND c.identity < '["only#'
  AND NOT c.occurred_at BETWEEN (SELECT min(occurred_at) FROM lost_facts) AND (SELECT max(occurred_at) FROM lost_facts)
  AND c.command_id IN (SELECT command_id FROM lost_facts WHERE is_timeless)
