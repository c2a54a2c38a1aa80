-- promote_first.sql: when the first of a fact is about to go, the next in position takes its place.
-- in: $file_no of the rows about to go.
UPDATE command_rows
SET is_first = TRUE
FROM (
    WITH arrived AS (
        SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger
    ),
    times AS (
        SELECT min(occurred_at) AS earliest, max(occurred_at) AS latest FROM command_rows WHERE file_no = $file_no
    ),
    candidates AS (
        SELECT command_id, file_no, line, item_no, rowid AS row_no
        FROM command_rows
        WHERE occurred_at >= (SELECT earliest FROM times) AND occurred_at <= (SELECT latest FROM times)
        UNION ALL
        SELECT command_id, file_no, line, item_no, rowid AS row_no  -- see repeated_facts.sql
        FROM command_rows
        WHERE identity >= '["only"' AND identity < '["only#'
          AND NOT occurred_at BETWEEN (SELECT earliest FROM times) AND (SELECT latest FROM times)
    )
    SELECT
        c.command_id,
        arg_min(
            c.row_no,
            (a.place::HUGEINT * 4294967296 * 281474976710656) + (c.line::HUGEINT * 4294967296) + c.item_no
        ) AS next_row
    FROM candidates AS c
    JOIN arrived AS a USING (file_no)
    WHERE c.file_no <> $file_no
      AND c.command_id IN (SELECT g.command_id FROM command_rows AS g WHERE g.file_no = $file_no AND g.is_first)
    GROUP BY c.command_id
) AS heir
WHERE command_rows.rowid = heir.next_row
