-- ledger.sql: what every ledger row says of its object, beside what was listed, in the order in which files came.
-- A file is in a landing where SourceFile.is_same says that it is one of those listed.
-- in: landings (Parquet: bucket, key, etag, version_id, size_bytes, last_modified), archives (Parquet: bucket, key, size_bytes), the variable since (when listing began).
SELECT
    l.file_id, l.source, l.bucket, l.key, l.size_bytes, l.read_bytes, l.state, l.last_modified, l.loaded_at, l.failed, l.attempts,
    l.next_try_at, l.error, l.redrive_of, l.archived_to, l.deleted_at,
    coalesce(f.open_failures, 0) AS open_failures,
    t.file_id IS NOT NULL AS in_landing,
    a.key IS NOT NULL OR h.file_id IS NOT NULL AS in_archive
FROM ledger AS l
LEFT JOIN (
    SELECT file_no, count(*) AS open_failures FROM failed_line_rows WHERE redriven_by IS NULL GROUP BY file_no
) AS f USING (file_no)
LEFT JOIN (
    SELECT DISTINCT k.file_id
    FROM ledger AS k
    JOIN landings AS m USING (bucket, key, size_bytes)
    WHERE (m.version_id IS NULL OR k.version_id IS NULL OR m.version_id = k.version_id)
      AND CASE WHEN m.etag <> '' AND k.etag <> '' THEN m.etag = k.etag ELSE k.last_modified = m.last_modified END
) AS t USING (file_id)
LEFT JOIN (SELECT DISTINCT bucket, key, size_bytes FROM archives) AS a
    ON a.bucket = l.bucket AND a.key = l.archived_to AND a.size_bytes = l.size_bytes
LEFT JOIN (
    SELECT DISTINCT file_id FROM history WHERE action = 'archived' AND "at" >= getvariable('since')
) AS h USING (file_id)
ORDER BY l.file_no
