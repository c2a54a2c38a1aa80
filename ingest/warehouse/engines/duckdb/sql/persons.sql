-- persons.sql: whom aliases join.

-- name: new_alias_pairs
-- which keys the aliases of this load join.
-- in: $file_nos of this load.   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND file_no = ANY($file_nos) AND person_key <> alias_key

-- name: touched_links
-- the components that some keys belong to so far.
-- in: touched (Arrow: people_space, identity_key).   out: people_space, identity_key, person_id.
SELECT p.people_space, p.identity_key, p.person_id
FROM person_links AS p
SEMI JOIN touched AS t USING (people_space, identity_key)

-- name: merge_links
-- components that became one take the smaller name.
-- in: merged (Arrow: people_space, person_id, merged_into).
UPDATE person_links
SET person_id = m.merged_into
FROM merged AS m
WHERE person_links.people_space = m.people_space AND person_links.person_id = m.person_id

-- name: insert_links
-- keys that an alias names for the first time.
-- in: links (Arrow: people_space, identity_key, person_id).
INSERT INTO person_links SELECT people_space, identity_key, person_id FROM links

-- name: component_members
-- every key in the components of some keys.
-- in: touched (Arrow: people_space, identity_key).   out: people_space, identity_key.
SELECT people_space, identity_key
FROM person_links
WHERE (people_space, person_id) IN (
    SELECT (p.people_space, p.person_id) FROM person_links AS p SEMI JOIN touched USING (people_space, identity_key)
)

-- name: delete_links
-- forget the components of some keys, to be found anew.
-- in: members (Arrow: people_space, identity_key).
DELETE FROM person_links WHERE (people_space, identity_key) IN (SELECT (people_space, identity_key) FROM members)

-- name: remaining_alias_pairs
-- the aliases that still join some keys.
-- in: members (Arrow: people_space, identity_key).   out: people_space, person_key, alias_key.
SELECT DISTINCT c.people_space, c.person_key, c.alias_key
FROM full_rows AS c
SEMI JOIN members AS m ON m.people_space = c.people_space AND m.identity_key = c.person_key
WHERE c.kind = 'alias' AND c.person_key <> c.alias_key

-- name: all_alias_pairs
-- which keys all aliases join.
-- out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND person_key <> alias_key
