-- recognise.sql: files that the ledger knows under another id, since less or more was seen of versions when they came.
-- As SourceFile.is_same has it: the same key, size and ETag; where one of the two has no ETag, the same time.
-- in: met (Arrow: place, bucket, key, etag, version_id, size_bytes, last_modified).
-- out: place, file_id (of several rows the newest).
SELECT m.place, arg_max(k.file_id, k.file_no) AS file_id
FROM met AS m
JOIN ledger AS k USING (bucket, key, size_bytes)
WHERE k.redrive_of IS NULL
  AND (m.version_id IS NULL OR k.version_id IS NULL OR m.version_id = k.version_id)
  AND CASE WHEN m.etag <> '' AND k.etag <> '' THEN m.etag = k.etag ELSE k.last_modified = m.last_modified END
GROUP BY m.place
