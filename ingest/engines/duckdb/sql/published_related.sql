-- published_related.sql: files that have to do with one.
-- Ids are compared by their hashes, which takes a tenth of the time.
-- in: what its row says: $file_id, $bucket, $key, $redrive_of, $duplicate_of, $replaced_by.   out: row, relation.
WITH related AS (
    SELECT
        rowid AS row, file_no,
        CASE
            WHEN redrive_of = $file_id THEN 'redrive'
            WHEN id_hash = hash($redrive_of) THEN 'original'
            WHEN duplicate_of = $file_id THEN 'duplicate'
            WHEN id_hash = hash($duplicate_of) THEN 'duplicate_of'
            WHEN replaced_by = $file_id THEN 'replaces'
            WHEN id_hash = hash($replaced_by) THEN 'replaced_by'
            -- A redrive has the key of its original, and is no version of the object.
            WHEN key = $key AND bucket = $bucket AND redrive_of IS NULL AND $redrive_of::VARCHAR IS NULL THEN 'version'
        END AS relation
    FROM published.ledger
    WHERE id_hash <> hash($file_id)
)
SELECT row, relation
FROM related
WHERE relation IS NOT NULL
ORDER BY
    list_position(
        ['redrive', 'original', 'duplicate', 'duplicate_of', 'replaces', 'replaced_by', 'version'], relation
    ),
    file_no DESC
LIMIT 200
