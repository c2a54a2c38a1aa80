-- touched_links.sql: the components that some keys belong to so far.
-- in: touched (Arrow: people_space, identity_key).   out: people_space, identity_key, person_id.
SELECT p.people_space, p.identity_key, p.person_id
FROM person_links AS p
SEMI JOIN touched AS t USING (people_space, identity_key)
