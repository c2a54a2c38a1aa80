-- told.sql: what the lake is told before a statement changes the mirror: `told_` and the name of that statement.

-- name: told_enter_file
INSERT INTO changes BY NAME SELECT 'ledger' AS change, * FROM entries

-- name: told_rename_files
INSERT INTO changes BY NAME
SELECT 'ledger' AS change, l.* REPLACE (r.to_space AS people_space, r.to_match AS match)
FROM ledger AS l
JOIN renamed AS r USING (file_no)

-- name: told_enter_stages
INSERT INTO changes BY NAME SELECT 'stage' AS change, file_no, stage_no FROM taken_stages

-- name: told_delete_failed
INSERT INTO changes BY NAME SELECT 'gone' AS change, file_no FROM leaving

-- name: told_mark_mended
INSERT INTO changes BY NAME SELECT 'mended' AS change, file_no, line, item, redriven_at, redriven_by FROM marks

-- name: told_reopen
INSERT INTO changes BY NAME
SELECT 'mended' AS change, file_no, line, item FROM failed_line_rows WHERE redriven_by = ANY($redrives)

-- name: told_promote_first
INSERT INTO changes BY NAME
SELECT 'shadow' AS change, file_no, line, item_no, command_id, TRUE AS is_first FROM heirs

-- name: told_forget_shadows
INSERT INTO changes BY NAME
SELECT 'shadow' AS change, file_no, line, item_no, command_id, TRUE AS is_first
FROM shadow_rows
WHERE file_no IN (SELECT file_no FROM taken_stages)

-- name: told_yield_first
INSERT INTO changes BY NAME
SELECT 'shadow' AS change, h.file_no, h.line, h.item_no, h.command_id, FALSE AS is_first
FROM facts_here AS h
JOIN repeated_facts AS r USING (command_id)
WHERE r.is_here AND NOT r.here_is_first

-- name: told_shadow_staged
INSERT INTO changes BY NAME
SELECT 'shadow' AS change, file_no, line, item_no, command_id, FALSE AS is_first FROM not_first

-- name: told_insert_links
INSERT INTO changes BY NAME SELECT 'link' AS change, people_space, identity_key, person_id FROM links

-- name: told_merge_links
INSERT INTO changes BY NAME
SELECT 'link' AS change, people_space, p.identity_key, m.merged_into AS person_id
FROM person_links AS p
JOIN merged AS m USING (people_space, person_id)

-- name: told_delete_links
INSERT INTO changes BY NAME SELECT 'link' AS change, people_space, identity_key FROM members

-- name: told_forget_links
INSERT INTO changes BY NAME SELECT 'link' AS change, people_space, identity_key FROM person_links

-- name: told_tell
INSERT INTO changes BY NAME SELECT 'history' AS change, * FROM told

-- name: told_enter_polled
INSERT INTO changes BY NAME SELECT 'polled' AS change, $source AS source, $now::TIMESTAMPTZ AS first_polled_at

-- name: told_enter_people_space
INSERT INTO changes BY NAME SELECT 'space' AS change, $people_space AS people_space, $match AS match

-- name: settle
-- in: own (name, value).
INSERT OR REPLACE INTO settled SELECT name, value FROM own

-- name: told_settle
INSERT INTO changes BY NAME SELECT 'settled' AS change, name, value FROM own

-- name: told_incoming_failed
-- in: incoming (what the statement incoming_failed gives).
INSERT INTO changes BY NAME SELECT 'failed' AS change, * EXCLUDE (redriven_at, redriven_by) FROM incoming

-- name: told_rows
-- what one commit adds to the lake, commands apart.
-- in: changes.   The caller puts the number of the commit in place of {commit_no}.
SELECT * REPLACE ((({commit_no})::BIGINT << 32) + row_number() OVER (ORDER BY rowid) AS seq) FROM changes ORDER BY rowid
