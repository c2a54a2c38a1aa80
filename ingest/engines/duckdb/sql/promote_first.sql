-- promote_first.sql: when the first of a fact is about to go, the next in position takes its place.
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
