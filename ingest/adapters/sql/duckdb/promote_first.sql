-- promote_first.sql: when the first of a fact is about to go, the next in position takes its place.
-- in: $file_no of the rows about to go.
UPDATE command_rows
SET is_first = TRUE
FROM (
    WITH arrived AS (
        SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger
    )
    SELECT
        c.command_id,
        arg_min(
            c.rowid,
            (a.place::HUGEINT * 4294967296 * 281474976710656) + (c.line::HUGEINT * 4294967296) + c.item_no
        ) AS next_row
    FROM command_rows AS c
    JOIN arrived AS a USING (file_no)
    WHERE c.file_no <> $file_no
      AND c.command_id IN (SELECT g.command_id FROM command_rows AS g WHERE g.file_no = $file_no AND g.is_first)
      AND c.occurred_at >= (SELECT min(g.occurred_at) FROM command_rows AS g WHERE g.file_no = $file_no)
      AND c.occurred_at <= (SELECT max(g.occurred_at) FROM command_rows AS g WHERE g.file_no = $file_no)
    GROUP BY c.command_id
) AS heir
WHERE command_rows.rowid = heir.next_row
