-- unjoined_aliases.sql: aliases whose two keys are not linked to the same person.
-- out: people_space, person_key, alias_key.
SELECT DISTINCT c.people_space, c.person_key, c.alias_key
FROM full_rows AS c
LEFT JOIN person_links AS one ON one.people_space = c.people_space AND one.identity_key = c.person_key
LEFT JOIN person_links AS other ON other.people_space = c.people_space AND other.identity_key = c.alias_key
WHERE c.kind = 'alias'
  AND c.person_key <> c.alias_key
  AND (one.person_id IS DISTINCT FROM other.person_id OR one.person_id IS NULL)
