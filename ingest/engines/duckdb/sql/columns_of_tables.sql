-- columns_of_tables.sql: what the tables of the file are made of, in order; `schema_version` is no content.
-- out: table_name, column_name, kind of type.
SELECT c.table_name, c.column_name, regexp_extract(c.data_type, '^\w+')
FROM duckdb_columns() AS c
JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name)
WHERE c.database_name = 'warehouse' AND NOT t.temporary AND c.table_name <> 'schema_version'
ORDER BY c.table_name, c.column_index
