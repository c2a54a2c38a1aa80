-- known_same_bytes.sql: loaded files with the bytes of files about to be loaded.
-- in: candidates (Arrow: file_id, source, bucket, key, sha256).   out: file_id of the candidate, the one loaded, its key.
SELECT c.file_id, l.file_id AS loaded_file_id, l.bucket = c.bucket AND l.key = c.key AS same_key
FROM candidates AS c
JOIN ledger AS l ON l.sha256 = c.sha256 AND l.source = c.source AND l.state = 'loaded' AND l.file_id <> c.file_id
ORDER BY l.file_no
