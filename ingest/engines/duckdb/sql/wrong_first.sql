-- wrong_first.sql: facts of whose rows not exactly the one with the smallest position is marked as the first.
-- out: temp table wrong_first: command_id, and where its first row stands (as `rowid`).
CREATE OR REPLACE TEMP TABLE wrong_first AS
WITH arrived AS (
    SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger
),
placed AS (
    SELECT
        c.command_id, c.is_first, c.rowid AS row_no,
        (a.place::HUGEINT * 4294967296 * 281474976710656) + (c.line::HUGEINT * 4294967296) + c.item_no AS place
    FROM command_rows AS c
    JOIN arrived AS a USING (file_no)
)
SELECT command_id, arg_min(row_no, place) AS row_no
FROM placed
GROUP BY command_id
HAVING count(*) FILTER (is_first) <> 1 OR NOT arg_min(is_first, place)
