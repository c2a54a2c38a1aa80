-- read.sql: what commands ask for.

-- name: untidied
-- loaded files of a source, and copies, whose objects are still in the landing: some, the newest first.
-- in: $source, $bucket, $prefix, $step (archive; copy: not archived yet; delete: see `Warehouse.untidied`),
-- $file_ids (NULL: any whose bytes were read as they were listed), $before (a file_no, or NULL), $limit.
SELECT l.*, coalesce(f.open_failures, 0) AS open_failures
FROM ledger AS l
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE redriven_by IS NULL) AS open_failures, bool_or(redriven_by IS NOT NULL) AS some_mended
    FROM failed_line_rows
    WHERE file_no = l.file_no AND l.failed > 0
) AS f ON TRUE
WHERE l.source = $source AND l.bucket = $bucket AND starts_with(l.key, $prefix)
  AND l.state IN ('loaded', 'duplicate') AND l.deleted_at IS NULL AND l.redrive_of IS NULL
  AND ($step <> 'copy' OR l.archived_to IS NULL)
  AND CASE
      WHEN $file_ids::text[] IS NULL THEN coalesce(l.read_bytes, l.size_bytes) = l.size_bytes
      ELSE l.file_id = ANY($file_ids::text[])
  END
  AND ($before::bigint IS NULL OR l.file_no < $before::bigint)
  AND ($step <> 'delete' OR coalesce(f.open_failures = 0 OR f.some_mended, TRUE))
ORDER BY l.file_no DESC
LIMIT $limit

-- name: open_failures
-- open failed lines with a code, newest file first. The caller puts values in place of {code}, {source}, {since}, {limit}.
SELECT
    l.file_id, l.source, l.bucket, l.key, l.format, f.line, f.item, f.byte_offset, f.byte_length, f.raw, f.raw_sha256,
    f.mendable, f.codes, f.failures, f.redriven_at, f.redriven_by, f.context
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no)
WHERE f.redriven_by IS NULL AND l.state IN ('loaded', 'rejected') AND {code} = ANY(f.codes)
  AND ({source}::text IS NULL OR l.source = {source})
  AND ({since}::timestamptz IS NULL OR coalesce(l.loaded_at, l.last_modified) >= {since}::timestamptz)
ORDER BY f.file_no DESC, f.line, f.item
LIMIT {limit}
