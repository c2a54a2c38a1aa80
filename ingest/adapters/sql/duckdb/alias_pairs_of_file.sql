-- alias_pairs_of_file.sql: which keys the aliases of one file join.
-- in: $file_no.   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND file_no = $file_no AND person_key <> alias_key
