-- delete_links.sql: forget the components of some keys, to be found anew.
-- in: members (Arrow: people_space, identity_key).
DELETE FROM person_links WHERE (people_space, identity_key) IN (SELECT (people_space, identity_key) FROM members)
