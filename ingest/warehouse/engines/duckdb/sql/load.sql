-- load.sql: what a load brings, in the order in which it runs.

-- name: count_staged_failed
-- how many failed lines each file of this load would add. Reads one narrow column.
-- in: staged_failed, entered.   out: staged_no, kind, rows.
SELECT staged_no, 'failed' AS kind, count(*) AS rows FROM staged_failed JOIN entered USING (staged_no) GROUP BY staged_no

-- name: incoming_failed
-- the failed lines of a load, of rejected files too.
-- in: staged_failed (Parquet), entered (every file of this load whose lines are kept).
SELECT
    e.file_no, s.line, s.item, s.byte_offset, s.byte_length, s.raw, s.raw_sha256, s.mendable, s.codes, s.failures,
    NULL::TIMESTAMPTZ AS redriven_at, NULL::VARCHAR AS redriven_by, s.context
FROM staged_failed AS s
JOIN entered AS e USING (staged_no)

-- name: lost_facts
-- facts whose first row is about to go.
-- in: leaving (Arrow: file_no).   out: temp table lost_facts; `is_timeless`: see staged_facts.
CREATE OR REPLACE TEMP TABLE lost_facts AS
SELECT
    command_id, occurred_at, coalesce(identity >= '["only"' AND identity < '["only#', FALSE) AS is_timeless
FROM command_rows
SEMI JOIN leaving USING (file_no)
WHERE is_first

-- name: other_rows
-- of facts whose first row is about to go, the rows that stay.
-- Equal facts have equal times, so only those times need looking at; but for the timeless, see repeated_facts.
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

-- name: promote_first
-- when the first of a fact is about to go, the next in position takes its place.
-- in: other_rows.
UPDATE command_rows
SET is_first = TRUE
FROM (
    WITH arrived AS (  -- only files that share such a fact: the ledger may be long
        SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place
        FROM ledger
        WHERE file_no IN (SELECT file_no FROM other_rows)
    )
    SELECT
        o.command_id,
        arg_min(
            o.row_no,
            (a.place::HUGEINT * 4294967296 * 281474976710656) + (o.line::HUGEINT * 4294967296) + o.item_no
        ) AS next_row
    FROM other_rows AS o
    JOIN arrived AS a USING (file_no)
    GROUP BY o.command_id
) AS heir
WHERE command_rows.rowid = heir.next_row

-- name: staged_commands
-- the commands of this load.
-- in: staged_rows (Parquet), taken (the files of this load; `place`: their order).
-- out: view staged_commands; `is_timeless`: its identity is not what it says (["only", …]), so neither is its time.
CREATE OR REPLACE TEMP VIEW staged_commands AS
SELECT
    s.*, t.file_no, t.place AS file_place, coalesce(s.identity >= '["only"' AND s.identity < '["only#', FALSE) AS is_timeless
FROM staged_rows AS s
JOIN taken AS t USING (staged_no)

-- name: staged_times
-- in: staged_commands.   out: temp table staged_times: the first and the last of them, and whether any is timeless.
CREATE OR REPLACE TEMP TABLE staged_times AS
SELECT min(occurred_at) AS first, max(occurred_at) AS last, bool_or(is_timeless) AS any_timeless FROM staged_commands

-- name: may_be_here
-- whether any of those may be there already: something of their time, or what has none.
-- in: staged_times.
SELECT
    (SELECT any_timeless FROM staged_times)
    OR EXISTS (
        FROM command_rows
        WHERE occurred_at >= (SELECT first FROM staged_times) AND occurred_at <= (SELECT last FROM staged_times)
    )

-- name: none_here
-- out: temp table facts_here, as below.
CREATE OR REPLACE TEMP TABLE facts_here AS SELECT command_id, file_no, line, item_no FROM command_rows LIMIT 0

-- name: facts_here
-- the first rows of facts of this load that are there already.
-- Equal facts have equal times, so only the times of this load need looking at; but for those whose identity is not what
-- they say, which are looked for among their like.
-- in: staged_commands, staged_times.   out: temp table facts_here.
CREATE OR REPLACE TEMP TABLE facts_here AS
SELECT c.command_id, c.file_no, c.line, c.item_no
FROM command_rows AS c
WHERE c.is_first
  AND c.occurred_at >= (SELECT first FROM staged_times)
  AND c.occurred_at <= (SELECT last FROM staged_times)
  AND c.command_id IN (SELECT command_id FROM staged_commands)
UNION ALL
SELECT c.command_id, c.file_no, c.line, c.item_no
FROM command_rows AS c
WHERE c.is_first
  AND c.identity >= '["only"' AND c.identity < '["only#'  -- not LIKE: so the engine need not look where there are none
  AND NOT c.occurred_at BETWEEN (SELECT first FROM staged_times) AND (SELECT last FROM staged_times)
  AND c.command_id IN (SELECT command_id FROM staged_commands WHERE is_timeless)

-- name: files_here
-- where the files of what is there stand among those of this load: between two of them are the even numbers. Where
-- positions are equal (a file and its redrives), the one that was entered before stands before: as in wrong_first.
-- in: facts_here, taken (the files of this load; `place`: 1, 3, 5 … by position).   out: temp table files_here.
CREATE OR REPLACE TEMP TABLE files_here AS
SELECT l.file_no, coalesce(t.place + 1, 0) AS place
FROM (SELECT file_no, position FROM ledger WHERE file_no IN (SELECT DISTINCT file_no FROM facts_here)) AS l
ASOF LEFT JOIN taken AS t ON l.position > t.position
UNION ALL
SELECT file_no, place FROM taken  -- of which some rows may be inserted already

-- name: staged_repeated
-- the commands of this load whose fact it brings more than once, or that are there already. First which facts those are,
-- since they are few: so what the engine holds of the others is their ids.
-- in: staged_commands, facts_here.   out: temp table staged_repeated; `place` sorts as `position` does: file, line, item.
CREATE OR REPLACE TEMP TABLE staged_repeated AS
WITH repeated AS MATERIALIZED (
    SELECT command_id
    FROM (SELECT command_id FROM staged_commands UNION ALL SELECT command_id FROM facts_here)
    GROUP BY command_id
    HAVING count(*) > 1
)
SELECT
    command_id, staged_no, file_no, line, item_no, occurred_at,
    (file_place::HUGEINT * 4294967296 * 281474976710656) + (line::HUGEINT * 4294967296) + item_no AS place
FROM staged_commands
SEMI JOIN repeated USING (command_id)

-- name: repeated_facts
-- their facts. A grouping instead of joins, so that it can leave memory for disk.
-- in: staged_repeated, facts_here, files_here.
-- out: temp table repeated_facts: where the first that this load brings stands, whether one is there, and whether that
-- one has the smaller position and stays the first.
CREATE OR REPLACE TEMP TABLE repeated_facts AS
SELECT
    command_id,
    min(place) FILTER (NOT is_here) AS place,
    bool_or(is_here) AS is_here,
    coalesce(min(place) FILTER (is_here) <= min(place) FILTER (NOT is_here), FALSE) AS here_is_first
FROM (
    SELECT command_id, place, FALSE AS is_here FROM staged_repeated
    UNION ALL
    SELECT
        h.command_id,
        (f.place::HUGEINT * 4294967296 * 281474976710656) + (h.line::HUGEINT * 4294967296) + h.item_no,
        TRUE
    FROM facts_here AS h
    JOIN files_here AS f USING (file_no)
)
GROUP BY command_id
HAVING count(*) > 1

-- name: not_first
-- where those commands of this load stand that are not the first of their fact.
-- in: staged_repeated, repeated_facts.   out: temp table not_first.
CREATE OR REPLACE TEMP TABLE not_first AS
SELECT s.occurred_at, s.command_id, s.file_no, s.line, s.item_no
FROM staged_repeated AS s
JOIN repeated_facts AS r USING (command_id)
WHERE r.here_is_first OR r.place <> s.place

-- name: count_duplicates
-- per file, the accepted commands whose fact was there already, in the order of the load.
-- in: staged_repeated, repeated_facts.   out: staged_no, duplicates.
SELECT s.staged_no, count(*) AS duplicates
FROM staged_repeated AS s
JOIN repeated_facts AS r USING (command_id)
WHERE r.is_here OR s.place <> r.place
GROUP BY s.staged_no

-- name: yield_first
-- rows that were the first of their fact until this load brings one with a smaller position.
-- in: repeated_facts, of rows that are not inserted yet.
UPDATE command_rows
SET is_first = FALSE
FROM repeated_facts AS r
WHERE command_rows.command_id = r.command_id
  AND r.is_here
  AND NOT r.here_is_first
  AND command_rows.is_first

-- name: count_staged_commands
-- how many commands of each kind each file of this load would add. Reads two narrow columns.
-- in: staged_commands.   out: staged_no, kind, rows.
SELECT staged_no, kind, count(*) AS rows FROM staged_commands GROUP BY staged_no, kind

-- name: incoming_commands
-- the rows of a load, each knowing whether it is the first of its fact.
-- in: staged_commands, not_first.
SELECT
    s.file_no, s.line, s.item_no, nullif(s.item, '') AS item, s.kind, s.people_space, s.person, s.person_key,
    s.occurred_at, s.event, s.event_key, s.alias, s.alias_key, s.properties, s.time_source, s.command_id,
    n.command_id IS NULL AS is_first, s.identity
FROM staged_commands AS s
LEFT JOIN not_first AS n USING (command_id, file_no, line, item_no)

-- name: enter_file
-- the ledger row of a file that was dealt with, whatever came of it.
-- in: entries (Arrow: a column for each that is told).
INSERT OR REPLACE INTO ledger BY NAME SELECT * FROM entries
