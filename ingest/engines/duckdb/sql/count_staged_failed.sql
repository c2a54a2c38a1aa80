-- count_staged_failed.sql: how many failed lines each file of this load would add. Reads one narrow column.
-- in: staged_failed, entered.   out: staged_no, kind, rows.
SELECT staged_no, 'failed' AS kind, count(*) AS rows FROM staged_failed JOIN entered USING (staged_no) GROUP BY staged_no
