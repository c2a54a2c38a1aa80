-- rewrite.sql: rows that go elsewhere: under other names, or to another engine.

-- name: rows_to_rename
-- the rows of some files, with what their keys and identities are to be made from.
-- in: renamed (file_no, people_space, to_space, to_match).
-- out: as command_rows, enumerations as text; then from_space, to_space, to_match, at (microseconds UTC).
SELECT
    c.occurred_at, c.command_id, c.file_no, c.line, c.item_no, c.is_first, c.kind::text AS kind,
    c.time_source::text AS time_source, c.item, c.people_space, c.person, c.person_key, c.event, c.event_key, c.alias,
    c.alias_key, c.properties::text AS properties, c.identity, r.people_space AS from_space, r.to_space, r.to_match,
    (extract(epoch FROM c.occurred_at) * 1000000)::bigint AS "at"
FROM command_rows AS c
JOIN renamed AS r USING (file_no)

-- name: columns_of_tables
-- what the tables are made of, in order; what says of what kind they are, or follows from others, is no content.
-- out: table_name, column_name, type.
SELECT c.relname::text AS table_name, a.attname::text AS column_name, a.atttypid::regtype::text AS type
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relname NOT IN ('schema_version', 'settled', 'warehouse_version', 'failure_counts')
ORDER BY c.relname, a.attnum
