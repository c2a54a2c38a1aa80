-- load.sql: what of a load every engine does in the same words.

-- name: mark_mended
-- failed lines that redrives mend.
-- in: marks (file_no, line, item, redriven_at, redriven_by (file_id of the redrive)).
UPDATE failed_line_rows
SET redriven_at = m.redriven_at, redriven_by = m.redriven_by
FROM marks AS m
WHERE failed_line_rows.file_no = m.file_no AND failed_line_rows.line = m.line AND failed_line_rows.item = m.item

-- name: leaving_alias_pairs
-- which keys the aliases of some files join.
-- in: leaving (file_no).   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE file_no IN (SELECT file_no FROM leaving) AND kind = 'alias' AND person_key <> alias_key

-- name: enter_people_space
-- how names match in a people space.
-- in: $people_space, $match.
INSERT INTO people_spaces VALUES ($people_space, $match)
ON CONFLICT (people_space) DO UPDATE SET match = excluded.match
