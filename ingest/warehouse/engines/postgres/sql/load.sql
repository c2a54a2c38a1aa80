-- load.sql: what a load brings. Staged rows are compared and counted beside the server, by the statements of DuckDB.

-- name: plan_few
-- a few rows are looked up one by one. Left alone the planner reads whole tables.
SELECT set_config('enable_hashjoin', 'off', TRUE), set_config('enable_mergejoin', 'off', TRUE)

-- name: plan_many
-- many are walked through beside the index, in its order.
SELECT set_config('enable_hashjoin', 'off', TRUE), set_config('enable_nestloop', 'off', TRUE),
    set_config('enable_mergejoin', 'on', TRUE)

-- name: plan_hashed
-- many are looked for among many, without their order.
SELECT set_config('enable_mergejoin', 'off', TRUE), set_config('enable_nestloop', 'off', TRUE)

-- name: plan_freely
SELECT set_config('enable_hashjoin', 'on', TRUE), set_config('enable_mergejoin', 'on', TRUE),
    set_config('enable_nestloop', 'on', TRUE)

-- name: times_there
-- the first and the last time of what is there of the time of this load.
-- in: $first, $last.
SELECT min(occurred_at), max(occurred_at) FROM command_rows WHERE occurred_at BETWEEN $first AND $last

-- name: those_here
-- which facts of this load are there already.
-- in: mine (occurred_at, command_id).   out: temp table those_here.
CREATE TEMP TABLE those_here ON COMMIT DROP AS
SELECT DISTINCT m.occurred_at, m.command_id
FROM mine AS m
JOIN command_rows AS c ON c.occurred_at = m.occurred_at AND c.command_id = m.command_id
WHERE c.occurred_at BETWEEN (SELECT min(occurred_at) FROM mine) AND (SELECT max(occurred_at) FROM mine)

-- name: facts_here
-- their first rows.
-- in: those_here, $own (file_nos of this load, which do not count).
-- out: command_id, file_no, line, item_no, occurred_at.
SELECT c.command_id, c.file_no, c.line, c.item_no, c.occurred_at
FROM those_here AS t
JOIN command_rows AS c ON c.occurred_at = t.occurred_at AND c.command_id = t.command_id
WHERE c.is_first AND c.file_no <> ALL($own)

-- name: timeless_here
-- the same of those whose identity is not what they say.
-- in: timeless (command_id), $own.   out: as facts_here.
SELECT c.command_id, c.file_no, c.line, c.item_no, c.occurred_at
FROM timeless AS t
JOIN command_rows AS c ON c.command_id = t.command_id
WHERE c.identity >= '["only"' AND c.identity < '["only#' AND c.is_first AND c.file_no <> ALL($own)

-- name: came_here
-- of facts of this load, the first rows in files that came since it looked.
-- in: mine (command_id), $came (file_nos).   out: as facts_here.
SELECT c.command_id, c.file_no, c.line, c.item_no, c.occurred_at
FROM command_rows AS c
WHERE c.file_no = ANY($came) AND c.is_first AND c.command_id IN (SELECT command_id FROM mine)

-- name: set_first
-- rows that become, or cease to be, the first of their fact.
-- in: marked (occurred_at, command_id, file_no, line, item_no, is_first).
UPDATE command_rows AS c
SET is_first = m.is_first
FROM marked AS m
WHERE c.occurred_at = m.occurred_at AND c.command_id = m.command_id AND c.file_no = m.file_no AND c.line = m.line
  AND c.item_no = m.item_no

-- name: lost_facts
-- facts whose first row is about to go.
-- in: leaving (file_no).   out: temp table lost_facts; `is_timeless`: its identity is not what it says.
DROP TABLE IF EXISTS pg_temp.lost_facts;

CREATE TEMP TABLE lost_facts ON COMMIT DROP AS
SELECT
    command_id, occurred_at, coalesce(identity >= '["only"' AND identity < '["only#', FALSE) AS is_timeless
FROM command_rows
WHERE file_no IN (SELECT file_no FROM leaving) AND is_first;

ANALYZE pg_temp.lost_facts

-- name: other_rows
-- of facts whose first row is about to go, the rows that stay.
-- Equal facts have equal times; but for the timeless, which are found by their ids.
-- in: lost_facts, leaving (file_no).   out: temp table other_rows.
DROP TABLE IF EXISTS pg_temp.other_rows;

CREATE TEMP TABLE other_rows ON COMMIT DROP AS
SELECT c.command_id, c.occurred_at, c.file_no, c.line, c.item_no
FROM lost_facts AS f
JOIN command_rows AS c ON c.occurred_at = f.occurred_at AND c.command_id = f.command_id
WHERE c.file_no NOT IN (SELECT file_no FROM leaving)
UNION
SELECT c.command_id, c.occurred_at, c.file_no, c.line, c.item_no
FROM lost_facts AS f
JOIN command_rows AS c ON c.command_id = f.command_id
WHERE f.is_timeless AND c.identity >= '["only"' AND c.identity < '["only#'
  AND c.file_no NOT IN (SELECT file_no FROM leaving);

ANALYZE pg_temp.other_rows

-- name: promote_first
-- when the first of a fact is about to go, the next in position takes its place.
-- in: other_rows.
UPDATE command_rows AS c
SET is_first = TRUE
FROM (
    SELECT DISTINCT ON (o.command_id) o.command_id, o.occurred_at, o.file_no, o.line, o.item_no
    FROM other_rows AS o
    JOIN ledger AS l USING (file_no)
    ORDER BY o.command_id, l.position, o.file_no, o.line, o.item_no
) AS heir
WHERE c.occurred_at = heir.occurred_at AND c.command_id = heir.command_id AND c.file_no = heir.file_no
  AND c.line = heir.line AND c.item_no = heir.item_no

-- name: enter_file
-- ledger rows of files that were dealt with, whatever came of them, in place of the former ones.
-- in: entries (a column for each of the ledger).
DELETE FROM ledger WHERE file_id IN (SELECT file_id FROM entries);

INSERT INTO ledger (
    file_id, file_no, source, bucket, key, etag, version_id, last_modified, sha256, size_bytes, format, people_space,
    state, lines, blank, items, records, sets, aliases, failed, repaired, duplicates, warnings, load_id, run_id,
    loaded_at, attempts, next_try_at, duplicate_of, replaced_by, redrive_of, archived_to, deleted_at, error, position,
    match, read_bytes
)
SELECT
    file_id, file_no, source, bucket, key, etag, version_id, last_modified, sha256, size_bytes, format, people_space,
    state, lines, blank, items, records, sets, aliases, failed, repaired, duplicates, warnings::json, load_id, run_id,
    loaded_at, attempts, next_try_at, duplicate_of, replaced_by, redrive_of, archived_to, deleted_at, error, position,
    match, read_bytes
FROM entries
