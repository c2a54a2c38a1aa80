-- staged_commands.sql: the commands of this load, and where each stands among them.
-- in: staged_rows (Parquet), taken (the files of this load; `place`: their order).
-- out: view staged_commands; `place` sorts as `position` does: file, line, item.
CREATE OR REPLACE TEMP VIEW staged_commands AS
SELECT
    s.*, t.file_no,
    (t.place::HUGEINT * 4294967296 * 281474976710656) + (s.line::HUGEINT * 4294967296) + s.item_no AS place
FROM staged_rows AS s
JOIN taken AS t USING (staged_no)
