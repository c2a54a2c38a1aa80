-- views.sql: commands as a DuckDB warehouse has them.

-- name: nothing_shown
-- in: changes.   out: view lake_commands, in place of which a session puts what files of the lake hold.
CREATE OR REPLACE TEMP VIEW lake_commands AS
SELECT
    stage_no, line, item_no, item, kind, people_space, person, person_key, occurred_at, event, event_key, alias, alias_key,
    properties, time_source, command_id, identity
FROM changes

-- name: command_rows
-- in: lake_commands, stages, shadow_rows.   out: a view in place of the table.
CREATE OR REPLACE VIEW command_rows AS
SELECT
    g.file_no, c.line, c.item_no, c.item, c.kind::command_kind AS kind, c.people_space, c.person, c.person_key,
    c.occurred_at, c.event, c.event_key, c.alias, c.alias_key, c.properties::JSON AS properties,
    c.time_source::time_source AS time_source, c.command_id, s.file_no IS NULL AS is_first, c.identity
FROM lake_commands AS c
JOIN stages AS g USING (stage_no)
LEFT JOIN shadow_rows AS s ON s.file_no = g.file_no AND s.line = c.line AND s.item_no = c.item_no AND s.command_id = c.command_id

-- name: rows_to_rename
-- in: renamed (Arrow: file_no, people_space, to_space, to_match).
SELECT
    c.* EXCLUDE (is_first)
        REPLACE (c.kind::VARCHAR AS kind, c.properties::VARCHAR AS properties, c.time_source::VARCHAR AS time_source),
    r.people_space AS from_space, r.to_space, r.to_match, epoch_us(c.occurred_at) AS "at"
FROM command_rows AS c
JOIN renamed AS r USING (file_no)
