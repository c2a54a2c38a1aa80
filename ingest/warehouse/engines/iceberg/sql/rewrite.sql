-- rewrite.sql: rows that go elsewhere: under other names, or to another engine.

-- name: columns_of_tables
-- what a warehouse is made of, in order; the rest of a mirror is no content.
-- out: table_name, column_name, kind of type.
SELECT c.table_name, c.column_name, regexp_extract(c.data_type, '^\w+')
FROM duckdb_columns() AS c
LEFT JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name)
WHERE c.database_name = 'warehouse' AND (t.table_name IS NOT NULL OR c.table_name = 'command_rows')
  AND c.table_name NOT IN ('schema_version', 'stages', 'shadow_rows', 'settled', 'lake_files', 'mirrored')
ORDER BY c.table_name, c.column_index

-- name: copied_commands
-- in: some_rows (commands as another warehouse has them), $first_stage.   out: as incoming_commands.
SELECT
    'commands' AS part, $first_stage + file_no AS stage_no, line, item_no::INTEGER AS item_no, item, kind, people_space,
    person, person_key, occurred_at, event, event_key, alias, alias_key, properties::VARCHAR AS properties, time_source,
    command_id::UUID AS command_id, identity
FROM some_rows

-- name: copied_shadows
-- in: some_rows.
INSERT INTO changes BY NAME
SELECT 'shadow' AS change, file_no, line, item_no, command_id::UUID AS command_id, FALSE AS is_first
FROM some_rows
WHERE NOT is_first
