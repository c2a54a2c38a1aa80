-- upkeep.sql: many small files become few.

-- name: live_commands
-- in: lake_small (commands of some files), stages.   out: those that are in force, as the lake has them.
SELECT c.* FROM lake_small AS c WHERE c.stage_no IN (SELECT stage_no FROM stages) ORDER BY c.occurred_at

-- name: tell_all
-- all that the mirror holds, as the lake is told it.
INSERT INTO changes BY NAME SELECT 'ledger' AS change, * FROM ledger;
INSERT INTO changes BY NAME SELECT 'stage' AS change, * FROM stages;
INSERT INTO changes BY NAME SELECT 'failed' AS change, * EXCLUDE (redriven_at, redriven_by) FROM failed_line_rows;
INSERT INTO changes BY NAME
SELECT 'mended' AS change, file_no, line, item, redriven_at, redriven_by FROM failed_line_rows WHERE redriven_by IS NOT NULL;
INSERT INTO changes BY NAME SELECT 'shadow' AS change, *, FALSE AS is_first FROM shadow_rows;
INSERT INTO changes BY NAME SELECT 'link' AS change, * FROM person_links;
SET preserve_insertion_order = true;
INSERT INTO changes BY NAME SELECT 'history' AS change, * FROM history;
SET preserve_insertion_order = false;
INSERT INTO changes BY NAME SELECT 'polled' AS change, * FROM polled_sources;
INSERT INTO changes BY NAME SELECT 'space' AS change, * FROM people_spaces;
INSERT INTO changes BY NAME SELECT 'settled' AS change, * FROM settled
