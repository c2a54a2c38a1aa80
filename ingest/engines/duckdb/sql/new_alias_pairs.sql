-- new_alias_pairs.sql: which keys the aliases of this load join.
-- in: first_file_no of this load.   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND file_no >= $first_file_no AND person_key <> alias_key
