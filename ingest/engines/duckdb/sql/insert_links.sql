-- insert_links.sql: keys that an alias names for the first time.
-- in: links (Arrow: people_space, identity_key, person_id).
INSERT INTO person_links SELECT people_space, identity_key, person_id FROM links
