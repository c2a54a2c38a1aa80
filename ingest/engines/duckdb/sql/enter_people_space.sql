-- enter_people_space.sql: how names match in a people space.
-- in: $people_space, $match.
INSERT INTO people_spaces VALUES ($people_space, $match)
ON CONFLICT (people_space) DO UPDATE SET match = excluded.match
