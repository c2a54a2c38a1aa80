-- published_history.sql: what was done to a file, in order.
-- in: $file_id.
SELECT * EXCLUDE (id_hash)
FROM published.history
WHERE id_hash = hash($file_id) AND file_id = $file_id
ORDER BY "at"
