-- remaining_alias_pairs.sql: the aliases that still join some keys.
-- in: members (Arrow: people_space, identity_key).   out: people_space, person_key, alias_key.
SELECT DISTINCT c.people_space, c.person_key, c.alias_key
FROM full_rows AS c
SEMI JOIN members AS m ON m.people_space = c.people_space AND m.identity_key = c.person_key
WHERE c.kind = 'alias' AND c.person_key <> c.alias_key
