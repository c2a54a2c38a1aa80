-- load.sql: what of a load every engine does in the same words.

-- name: mark_mended
-- failed lines that redrives mend.
-- in: marks (file_no, line, item, redriven_at, redriven_by (file_id of the redrive)).
UPDATE failed_line_rows
SET redriven_at = m.redriven_at, redriven_by = m.redriven_by
FROM marks AS m
WHERE failed_line_rows.file_no = m.file_no AND failed_line_rows.line = m.line AND failed_line_rows.item = m.item

-- name: reopen
-- failed lines that redrives mended are open again.
-- in: $redrives (file_ids).
UPDATE failed_line_rows SET redriven_at = NULL, redriven_by = NULL WHERE redriven_by = ANY($redrives)

-- name: delete_commands
-- in: leaving (file_no).
DELETE FROM command_rows WHERE file_no IN (SELECT file_no FROM leaving)

-- name: delete_failed
-- in: leaving (file_no).
DELETE FROM failed_line_rows WHERE file_no IN (SELECT file_no FROM leaving)

-- name: leaving_alias_pairs
-- which keys the aliases of some files join.
-- in: leaving (file_no).   out: people_space, person_key, alias_key.
SELECT DISTINCT people_space, person_key, alias_key
FROM full_rows
WHERE file_no IN (SELECT file_no FROM leaving) AND kind = 'alias' AND person_key <> alias_key

-- name: enter_polled
-- in: $source, $now.
INSERT INTO polled_sources VALUES ($source, $now)

-- name: tell
-- in: told (rows of history).
INSERT INTO history (file_id, action, "at", "by", reason, run_id) SELECT file_id, action, "at", "by", reason, run_id FROM told

-- name: enter_people_space
-- how names match in a people space.
-- in: $people_space, $match.
INSERT INTO people_spaces VALUES ($people_space, $match)
ON CONFLICT (people_space) DO UPDATE SET match = excluded.match

-- name: rename_files
-- in: renamed (file_no, to_space, to_match).
UPDATE ledger SET people_space = r.to_space, match = r.to_match FROM renamed AS r WHERE ledger.file_no = r.file_no
