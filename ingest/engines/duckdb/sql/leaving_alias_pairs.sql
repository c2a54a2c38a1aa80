-- leaving_alias_pairs.sql: which keys the aliases of some files join.
-- in: leaving (Arrow: file_no).   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
SEMI JOIN leaving USING (file_no)
WHERE kind = 'alias' AND person_key <> alias_key
