-- repeated_facts.sql: facts that this load brings more than once, or that are there already.
-- Equal facts have equal times, so only the times of this load need looking at; but for those whose identity is not what
-- they say, which are looked for among their like. Few columns, numbers instead of texts,
-- and a grouping instead of joins: so the engine can leave memory for disk.
-- in: staged_facts, taken (the files of this load; `place`: 1, 3, 5 … by position).
-- out: temp table repeated_facts: where the first that this load brings stands, whether one is there, and whether that
-- one has the smaller position and stays the first.
CREATE OR REPLACE TEMP TABLE facts_here AS
SELECT c.command_id, c.file_no, c.line, c.item_no
FROM command_rows AS c
WHERE c.is_first
  AND c.occurred_at >= (SELECT min(occurred_at) FROM staged_facts)
  AND c.occurred_at <= (SELECT max(occurred_at) FROM staged_facts)
  AND c.command_id IN (SELECT command_id FROM staged_facts)
UNION ALL
SELECT c.command_id, c.file_no, c.line, c.item_no
FROM command_rows AS c
WHERE c.is_first
  AND c.identity >= '["only"' AND c.identity < '["only#'  -- not LIKE: so the engine need not look where there are none
  AND NOT c.occurred_at BETWEEN (SELECT min(occurred_at) FROM staged_facts) AND (SELECT max(occurred_at) FROM staged_facts)
  AND c.command_id IN (SELECT command_id FROM staged_facts WHERE is_timeless);

-- Where their files stand among those of this load: between two of them are the even numbers.
CREATE OR REPLACE TEMP TABLE files_here AS
SELECT l.file_no, CASE WHEN t.place IS NULL THEN 0 WHEN t.position = l.position THEN t.place ELSE t.place + 1 END AS place
FROM (SELECT file_no, position FROM ledger WHERE file_no IN (SELECT DISTINCT file_no FROM facts_here)) AS l
ASOF LEFT JOIN taken AS t ON l.position >= t.position
UNION ALL
SELECT file_no, place FROM taken;  -- of which some rows may be inserted already

CREATE OR REPLACE TEMP TABLE repeated_facts AS
SELECT
    command_id,
    min(place) FILTER (NOT is_here) AS place,
    bool_or(is_here) AS is_here,
    coalesce(min(place) FILTER (is_here) <= min(place) FILTER (NOT is_here), FALSE) AS here_is_first
FROM (
    SELECT command_id, place, FALSE AS is_here FROM staged_facts
    UNION ALL
    SELECT
        h.command_id,
        (f.place::HUGEINT * 4294967296 * 281474976710656) + (h.line::HUGEINT * 4294967296) + h.item_no,
        TRUE
    FROM facts_here AS h
    JOIN files_here AS f USING (file_no)
)
GROUP BY command_id
HAVING count(*) > 1;
