-- insert_commands.sql: the rows of a load, each knowing whether it is the first of its fact.
-- in: staged_commands, repeated_facts.
INSERT INTO command_rows
SELECT
    s.file_no, s.line, s.item_no, nullif(s.item, ''), s.kind, s.people_space, s.person, s.person_key, s.occurred_at,
    s.event, s.event_key, s.alias, s.alias_key, s.properties, s.time_source, s.command_id,
    r.command_id IS NULL OR (NOT r.here_is_first AND r.place = s.place), s.identity
FROM staged_commands AS s
LEFT JOIN repeated_facts AS r USING (command_id)
