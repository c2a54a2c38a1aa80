-- rows_to_rename.sql: the rows of some files, with what their keys and identities are to be made from.
-- in: renamed (Arrow: file_no, people_space, to_space, to_match).
-- out: as command_rows, enumerations as text; then from_space, to_space, to_match, at (microseconds UTC).
SELECT
    c.* REPLACE (c.kind::VARCHAR AS kind, c.properties::VARCHAR AS properties, c.time_source::VARCHAR AS time_source),
    r.people_space AS from_space, r.to_space, r.to_match, epoch_us(c.occurred_at) AS "at"
FROM warehouse.command_rows AS c
JOIN renamed AS r USING (file_no)
