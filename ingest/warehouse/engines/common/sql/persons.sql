-- persons.sql: whom aliases join.

-- name: new_alias_pairs
-- which keys the aliases of this load join.
-- in: $file_nos of this load.   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND file_no = ANY($file_nos) AND person_key <> alias_key

-- name: touched_links
-- the components that some keys belong to so far.
-- in: touched (people_space, identity_key).   out: people_space, identity_key, person_id.
SELECT p.people_space, p.identity_key, p.person_id
FROM person_links AS p
JOIN touched AS t USING (people_space, identity_key)

-- name: merge_links
-- components that became one take the smaller name.
-- in: merged (people_space, person_id, merged_into).
UPDATE person_links
SET person_id = m.merged_into
FROM merged AS m
WHERE person_links.people_space = m.people_space AND person_links.person_id = m.person_id

-- name: insert_links
-- keys that an alias names for the first time.
-- in: links (people_space, identity_key, person_id).
INSERT INTO person_links SELECT people_space, identity_key, person_id FROM links

-- name: component_members
-- every key in the components of some keys.
-- in: touched (people_space, identity_key).   out: people_space, identity_key.
SELECT p.people_space, p.identity_key
FROM (
    SELECT DISTINCT o.people_space, o.person_id FROM person_links AS o JOIN touched USING (people_space, identity_key)
) AS t
JOIN person_links AS p USING (people_space, person_id)

-- name: delete_links
-- forget the components of some keys, to be found again.
-- in: members (people_space, identity_key).
DELETE FROM person_links
USING members AS m
WHERE person_links.people_space = m.people_space AND person_links.identity_key = m.identity_key

-- name: forget_links
-- all of them, to be found again.
DELETE FROM person_links

-- name: remaining_alias_pairs
-- the aliases that still join some keys.
-- in: members (people_space, identity_key).   out: people_space, person_key, alias_key.
SELECT DISTINCT
    coalesce(c.people_space, l.people_space) AS people_space, coalesce(c.person_key, c.person) AS person_key,
    coalesce(c.alias_key, c.alias) AS alias_key
FROM members AS m
JOIN command_rows AS c ON coalesce(c.person_key, c.person) = m.identity_key
JOIN ledger AS l ON l.file_no = c.file_no AND coalesce(c.people_space, l.people_space) = m.people_space
WHERE c.kind = 'alias' AND coalesce(c.person_key, c.person) <> coalesce(c.alias_key, c.alias)

-- name: all_alias_pairs
-- which keys all aliases join.
-- out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE kind = 'alias' AND person_key <> alias_key
