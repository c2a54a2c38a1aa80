-- component_members.sql: every key in the components of some keys.
-- in: touched (Arrow: people_space, identity_key).   out: people_space, identity_key.
SELECT people_space, identity_key
FROM person_links
WHERE (people_space, person_id) IN (
    SELECT (p.people_space, p.person_id) FROM person_links AS p SEMI JOIN touched USING (people_space, identity_key)
)
