-- discover.sql: what of a listing is to be taken.

-- name: unseen
-- of a listing, what the ledger has not dealt with and has not put off.
-- What was replaced is new again where its key came back to those bytes (a bucket that keeps no versions), or where it
-- was closed since its object seemed to be gone, and is listed again.
-- in: listed (place, file_id, version_id), $now, $latest (no file is put off beyond that: a clock was wrong).
-- out: place, is_known (it has a row).
SELECT l.place, k.file_id IS NOT NULL AS is_known
FROM listed AS l
LEFT JOIN ledger AS k USING (file_id)
WHERE k.file_id IS NULL
   OR (k.state = 'retrying' AND NOT coalesce(k.next_try_at > $now AND k.next_try_at <= $latest, FALSE))
   OR (k.state = 'replaced' AND (k.replaced_by IS NULL OR k.version_id IS NULL OR l.version_id IS NULL))
ORDER BY l.place

-- name: recognise
-- files that the ledger knows under another id, since less or more was seen of versions when they came.
-- As SourceFile.is_same has it: the same key, size and ETag; where one of the two has no ETag, the same time.
-- in: met (place, bucket, key, etag, version_id, size_bytes, last_modified).
-- out: place, file_id (of several rows the newest).
SELECT DISTINCT ON (m.place) m.place, k.file_id
FROM met AS m
JOIN ledger AS k USING (bucket, key, size_bytes)
WHERE k.redrive_of IS NULL
  AND (m.version_id IS NULL OR k.version_id IS NULL OR m.version_id = k.version_id)
  AND CASE WHEN m.etag <> '' AND k.etag <> '' THEN m.etag = k.etag ELSE k.last_modified = m.last_modified END
ORDER BY m.place, k.file_no DESC
