-- known_same_bytes.sql: of files about to be loaded, what the ledger has of their keys and of their bytes.
-- in: candidates (Arrow: file_id, source, bucket, key, sha256).
-- out: file_id of the candidate; file_id, file_no, state and duplicate_of of the other; whether it has the same key, the
-- same bytes.
WITH dealt_with AS NOT MATERIALIZED (  -- it may be a million rows
    SELECT file_id, file_no, source, bucket, key, sha256, state, duplicate_of
    FROM ledger
    WHERE redrive_of IS NULL AND state IN ('loaded', 'rejected', 'held', 'duplicate', 'replaced')
      AND sha256 IS NOT NULL  -- else its object was gone before anybody read it to its end
)
SELECT c.file_id, l.file_id AS other, l.file_no, l.state, l.duplicate_of, TRUE AS same_key, l.sha256 = c.sha256 AS same_bytes
FROM candidates AS c
JOIN dealt_with AS l USING (bucket, key)
WHERE l.file_id <> c.file_id
UNION ALL
SELECT c.file_id, l.file_id, l.file_no, l.state, l.duplicate_of, FALSE, TRUE
FROM candidates AS c
JOIN dealt_with AS l USING (sha256, source)
WHERE l.state = 'loaded' AND NOT (l.bucket = c.bucket AND l.key = c.key)
ORDER BY file_no
