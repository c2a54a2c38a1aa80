-- repeated_facts.sql: facts that this load brings more than once, or that are there already.
-- Equal facts have equal times, so only the times of this load need looking at.
-- in: staged_facts, taken.
-- out: temp table repeated_facts: the first that this load brings (brought_…), and whether one that is there (here_…)
-- has the smaller position and stays the first.
CREATE OR REPLACE TEMP TABLE repeated_facts AS
WITH bounds AS (
    SELECT min(occurred_at) AS earliest, max(occurred_at) AS latest FROM staged_facts
),
here AS (
    SELECT c.command_id, l.position || lpad(c.line::VARCHAR, 12, '0') || coalesce(c.item, '') AS position
    FROM command_rows AS c
    JOIN ledger AS l USING (file_no)
    WHERE c.is_first
      AND c.occurred_at >= (SELECT earliest FROM bounds)
      AND c.occurred_at <= (SELECT latest FROM bounds)
      AND c.command_id IN (SELECT command_id FROM staged_facts)
),
doubtful AS (
    SELECT command_id FROM here
    UNION
    SELECT command_id FROM staged_facts GROUP BY command_id HAVING count(*) > 1
),
placed AS (
    SELECT
        s.command_id, s.staged_no, s.line, s.item,
        t.position || lpad(s.line::VARCHAR, 12, '0') || s.item AS position
    FROM staged_facts AS s
    SEMI JOIN doubtful AS d USING (command_id)
    JOIN taken AS t USING (staged_no)
),
brought AS (
    SELECT
        command_id, min(position) AS position,
        arg_min((staged_no, line, item), position) AS place
    FROM placed
    GROUP BY command_id
)
SELECT
    b.command_id, b.place[1] AS brought_staged_no, b.place[2] AS brought_line, b.place[3] AS brought_item,
    h.position IS NOT NULL AS is_here, h.position IS NOT NULL AND h.position <= b.position AS here_is_first
FROM brought AS b
LEFT JOIN here AS h USING (command_id)
