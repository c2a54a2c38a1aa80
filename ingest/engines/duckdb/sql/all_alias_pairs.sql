-- all_alias_pairs.sql: which keys all aliases join.
-- out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND person_key <> alias_key
