-- same_again.sql: files whose key was dealt with last in these very bytes, and did not end up loaded: they are the same
-- file, whatever the store calls it now (the same bytes sent again in parts, ETags that it began to give, …). Bytes that
-- are loaded are no change, either: see known_same_bytes.sql. Nor are those of which a redrive is loaded.
-- in: strange (Arrow: place, bucket, key, sha256).   out: place, file_id.
SELECT s.place, k.file_id
FROM strange AS s
JOIN (
    SELECT bucket, key, max_by(file_id, file_no) AS file_id, max_by(state, file_no) AS state, max_by(sha256, file_no) AS sha256
    FROM ledger
    WHERE redrive_of IS NULL AND state <> 'retrying' AND (bucket, key) IN (SELECT bucket, key FROM strange)
    GROUP BY bucket, key
) AS k USING (bucket, key, sha256)
WHERE k.state IN ('undone', 'ignored', 'rejected', 'held')
  AND NOT EXISTS (SELECT 1 FROM ledger AS r WHERE r.redrive_of = k.file_id AND r.state = 'loaded')
