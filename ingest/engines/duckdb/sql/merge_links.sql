-- merge_links.sql: components that became one take the smaller name.
-- in: merged (Arrow: people_space, person_id, merged_into).
UPDATE person_links
SET person_id = m.merged_into
FROM merged AS m
WHERE person_links.people_space = m.people_space AND person_links.person_id = m.person_id
