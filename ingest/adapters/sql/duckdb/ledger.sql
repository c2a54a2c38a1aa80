-- ledger.sql: every ledger row, with the number of its failed lines that are still open.
SELECT l.*, coalesce(f.open_failures, 0) AS open_failures
FROM ledger AS l
LEFT JOIN (
    SELECT file_no, count(*) AS open_failures FROM failed_line_rows WHERE redriven_by IS NULL GROUP BY file_no
) AS f USING (file_no)
ORDER BY l.file_no
