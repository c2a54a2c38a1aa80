-- count_staged_commands.sql: how many commands of each kind each file of this load would add. Reads two narrow columns.
-- in: staged_commands.   out: staged_no, kind, rows.
SELECT staged_no, kind, count(*) AS rows FROM staged_commands GROUP BY staged_no, kind
