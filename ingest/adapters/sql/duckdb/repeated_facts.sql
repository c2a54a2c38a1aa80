-- repeated_facts.sql: facts that this load brings more than once, or that are there already.
-- Equal facts have equal times, so only the times of this load need looking at. Numbers are compared, not texts: with
-- those the engine could not leave memory for disk.
-- in: staged_facts, taken.
-- out: temp table repeated_facts: where the first that this load brings stands, whether one is there, and whether that
-- one has the smaller position and stays the first.
CREATE OR REPLACE TEMP TABLE repeated_facts AS
WITH bounds AS (
    SELECT min(occurred_at) AS earliest, max(occurred_at) AS latest FROM staged_facts
),
here AS (
    SELECT c.command_id, c.file_no, c.line, c.item_no
    FROM command_rows AS c
    WHERE c.is_first
      AND c.occurred_at >= (SELECT earliest FROM bounds)
      AND c.occurred_at <= (SELECT latest FROM bounds)
      AND c.command_id IN (SELECT command_id FROM staged_facts)
),
brought AS (
    SELECT command_id, min(place) AS place, count(*) AS times FROM staged_facts GROUP BY command_id
),
repeated AS (
    SELECT
        b.command_id, b.place, h.file_no, h.line, h.item_no,
        -- and back from a place to what it is made of
        (b.place // 4294967296 // 281474976710656)::BIGINT AS brought_file,
        (b.place // 4294967296 % 281474976710656)::BIGINT AS brought_line,
        (b.place % 4294967296)::BIGINT AS brought_item_no
    FROM brought AS b
    LEFT JOIN here AS h USING (command_id)
    WHERE b.times > 1 OR h.file_no IS NOT NULL
)
SELECT
    r.command_id, r.place, r.file_no IS NOT NULL AS is_here,
    r.file_no IS NOT NULL AND (
        (l.position, r.line, r.item_no) <= (t.position, r.brought_line, r.brought_item_no)
    ) AS here_is_first
FROM repeated AS r
JOIN taken AS t ON t.place = r.brought_file
LEFT JOIN (
    SELECT file_no, position FROM ledger
    UNION ALL
    SELECT file_no, position FROM taken  -- of which some rows may be inserted already
) AS l ON l.file_no = r.file_no
