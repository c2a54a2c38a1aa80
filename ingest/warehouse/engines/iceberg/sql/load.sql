-- load.sql: what a load does in another way than on DuckDB, since commands are never changed: which of them are not the
-- first of their fact stands beside them.

-- name: lost_facts
-- facts whose first row is about to go, and that others tell of as well.
-- in: lake_leaving (commands of the files that leave), leaving, shadow_rows.   out: temp table lost_facts.
CREATE OR REPLACE TEMP TABLE lost_facts AS
SELECT c.command_id
FROM lake_leaving AS c
JOIN stages AS g USING (stage_no)
ANTI JOIN shadow_rows AS s ON s.file_no = g.file_no AND s.line = c.line AND s.item_no = c.item_no AND s.command_id = c.command_id
WHERE c.command_id IN (SELECT command_id FROM shadow_rows)

-- name: other_rows
-- of each of them the row that is the first from now on. It is among those that are not.
-- in: lost_facts, leaving.   out: temp table heirs.
CREATE OR REPLACE TEMP TABLE heirs AS
WITH other AS (
    SELECT s.* FROM shadow_rows AS s ANTI JOIN leaving USING (file_no) WHERE s.command_id IN (SELECT command_id FROM lost_facts)
),
arrived AS (
    SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place
    FROM ledger
    WHERE file_no IN (SELECT file_no FROM other)
)
SELECT o.file_no, o.line, o.item_no, o.command_id
FROM other AS o
JOIN arrived AS a USING (file_no)
QUALIFY row_number() OVER (PARTITION BY o.command_id ORDER BY a.place, o.line, o.item_no) = 1

-- name: promote_first
-- in: heirs.
DELETE FROM shadow_rows USING heirs AS h
WHERE shadow_rows.file_no = h.file_no AND shadow_rows.line = h.line AND shadow_rows.item_no = h.item_no
  AND shadow_rows.command_id = h.command_id

-- name: leaving_alias_pairs
SELECT DISTINCT
    coalesce(c.people_space, l.people_space), coalesce(c.person_key, c.person), coalesce(c.alias_key, c.alias)
FROM lake_leaving AS c
JOIN stages USING (stage_no)
JOIN ledger AS l USING (file_no)
WHERE c.kind = 'alias' AND coalesce(c.person_key, c.person) <> coalesce(c.alias_key, c.alias)

-- name: delete_commands
-- in: leaving.
DELETE FROM stages WHERE file_no IN (SELECT file_no FROM leaving);
DELETE FROM shadow_rows WHERE file_no IN (SELECT file_no FROM leaving)

-- name: enter_stages
-- in: taken_stages (file_no, stage_no).
INSERT OR REPLACE INTO stages SELECT file_no, stage_no FROM taken_stages

-- name: may_be_here
-- in: staged_times, lake_near (commands of their time).
SELECT (SELECT any_timeless FROM staged_times) OR EXISTS (FROM lake_near)

-- name: facts_here
-- in: staged_commands, staged_times, lake_near.   out: temp table facts_here.
CREATE OR REPLACE TEMP TABLE facts_here AS
SELECT c.command_id, g.file_no, c.line, c.item_no
FROM lake_near AS c
JOIN stages AS g USING (stage_no)
ANTI JOIN shadow_rows AS s ON s.file_no = g.file_no AND s.line = c.line AND s.item_no = c.item_no AND s.command_id = c.command_id
WHERE c.command_id IN (SELECT command_id FROM staged_commands)
UNION ALL
SELECT c.command_id, g.file_no, c.line, c.item_no
FROM lake_commands AS c
JOIN stages AS g USING (stage_no)
ANTI JOIN shadow_rows AS s ON s.file_no = g.file_no AND s.line = c.line AND s.item_no = c.item_no AND s.command_id = c.command_id
WHERE c.identity >= '["only"' AND c.identity < '["only#'
  AND NOT c.occurred_at BETWEEN (SELECT first FROM staged_times) AND (SELECT last FROM staged_times)
  AND c.command_id IN (SELECT command_id FROM staged_commands WHERE is_timeless)

-- name: yield_first
-- in: facts_here, repeated_facts.
INSERT INTO shadow_rows
SELECT h.file_no, h.line, h.item_no, h.command_id
FROM facts_here AS h
JOIN repeated_facts AS r USING (command_id)
WHERE r.is_here AND NOT r.here_is_first

-- name: incoming_commands
-- in: staged_commands, stages.   out: rows as the lake has them.
SELECT
    'commands' AS part, g.stage_no, s.line, s.item_no, nullif(s.item, '') AS item, s.kind, s.people_space, s.person,
    s.person_key, s.occurred_at, s.event, s.event_key, s.alias, s.alias_key, s.properties::VARCHAR AS properties,
    s.time_source, s.command_id, s.identity
FROM staged_commands AS s
JOIN stages AS g USING (file_no)
ORDER BY s.occurred_at

-- name: shadow_staged
-- in: not_first.
INSERT INTO shadow_rows SELECT file_no, line, item_no, command_id FROM not_first

-- name: new_alias_pairs
-- in: lake_added (commands of this load), $file_nos.
SELECT DISTINCT
    coalesce(c.people_space, l.people_space), coalesce(c.person_key, c.person), coalesce(c.alias_key, c.alias)
FROM lake_added AS c
JOIN stages USING (stage_no)
JOIN ledger AS l USING (file_no)
WHERE c.kind = 'alias' AND file_no = ANY($file_nos)
  AND coalesce(c.person_key, c.person) <> coalesce(c.alias_key, c.alias)

-- name: wrong_first
-- out: temp table wrong_first: command_id, and where its first row stands.
CREATE OR REPLACE TEMP TABLE wrong_first AS
WITH arrived AS (
    SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger
),
placed AS (
    SELECT
        c.command_id, c.is_first, {'file_no': c.file_no, 'line': c.line, 'item_no': c.item_no} AS row_no,
        (a.place::HUGEINT * 4294967296 * 281474976710656) + (c.line::HUGEINT * 4294967296) + c.item_no AS place
    FROM command_rows AS c
    JOIN arrived AS a USING (file_no)
)
SELECT command_id, arg_min(row_no, place) AS row_no
FROM placed
GROUP BY command_id
HAVING count(*) FILTER (is_first) <> 1 OR NOT arg_min(is_first, place)

-- name: mark_first
-- in: wrong_first.   out: temp table marked.
CREATE OR REPLACE TEMP TABLE marked AS
SELECT
    c.file_no, c.line, c.item_no, c.command_id,
    {'file_no': c.file_no, 'line': c.line, 'item_no': c.item_no} = w.row_no AS is_first
FROM command_rows AS c
JOIN wrong_first AS w USING (command_id);
DELETE FROM shadow_rows WHERE command_id IN (SELECT command_id FROM marked);
INSERT INTO shadow_rows SELECT file_no, line, item_no, command_id FROM marked WHERE NOT is_first;
INSERT INTO changes BY NAME SELECT 'shadow' AS change, file_no, line, item_no, command_id, is_first FROM marked

-- name: forget_shadows
-- in: taken_stages: files whose facts are others now.
DELETE FROM shadow_rows WHERE file_no IN (SELECT file_no FROM taken_stages)
