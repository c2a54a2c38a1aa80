-- copies_of.sql: copies of files, under other keys than this one.
-- in: $originals (file_ids), $bucket, $key.   out: file_id, in the order in which they came.
SELECT file_id
FROM ledger
WHERE state = 'duplicate' AND list_contains($originals, duplicate_of) AND NOT (bucket = $bucket AND key = $key)
ORDER BY file_no
