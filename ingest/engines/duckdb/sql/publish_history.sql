-- publish_history.sql: what was done to files.
CREATE TABLE published.history AS SELECT *, hash(file_id) AS id_hash FROM warehouse.history
