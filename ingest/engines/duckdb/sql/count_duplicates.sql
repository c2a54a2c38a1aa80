-- count_duplicates.sql: per file, the accepted commands whose fact was there already, in the order of the load.
-- in: staged_facts, repeated_facts.   out: staged_no, duplicates.
SELECT s.staged_no, count(*) AS duplicates
FROM staged_facts AS s
JOIN repeated_facts AS r USING (command_id)
WHERE r.is_here OR s.place <> r.place
GROUP BY s.staged_no
