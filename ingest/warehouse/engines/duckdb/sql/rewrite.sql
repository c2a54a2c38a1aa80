-- rewrite.sql: rows that go elsewhere: under other names, or to another engine.

-- name: rows_to_rename
-- the rows of some files, with what their keys and identities are to be made from.
-- in: renamed (Arrow: file_no, people_space, to_space, to_match).
-- out: as command_rows, enumerations as text; then from_space, to_space, to_match, at (microseconds UTC).
SELECT
    c.* REPLACE (c.kind::VARCHAR AS kind, c.properties::VARCHAR AS properties, c.time_source::VARCHAR AS time_source),
    r.people_space AS from_space, r.to_space, r.to_match, epoch_us(c.occurred_at) AS "at"
FROM warehouse.command_rows AS c
JOIN renamed AS r USING (file_no)

-- name: columns_of_tables
-- what the tables of the file are made of, in order; `schema_version` is no content.
-- out: table_name, column_name, kind of type.
SELECT c.table_name, c.column_name, regexp_extract(c.data_type, '^\w+')
FROM duckdb_columns() AS c
JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name)
WHERE c.database_name = 'warehouse' AND NOT t.temporary AND c.table_name <> 'schema_version'
ORDER BY c.table_name, c.column_index
