-- reconcile.sql: whether the tables agree with each other, with the bucket and with the archive.

-- name: unknown_copies
-- of copies in an archive, those that no row of the ledger tells of: as on DuckDB.
-- in: copies (place, source, bucket, archived_to, key, plain_key (without a hash), etag, size_bytes, archived_at,
-- day_from, day_until).   out: place.
SELECT c.place
FROM copies AS c
WHERE NOT EXISTS (SELECT 1 FROM ledger AS l WHERE l.bucket = c.bucket AND l.archived_to = c.archived_to)
  AND NOT EXISTS (
    SELECT 1 FROM ledger AS l
    WHERE l.key IN (c.key, c.plain_key) AND l.bucket = c.bucket AND l.size_bytes = c.size_bytes
      AND l.redrive_of IS NULL AND l.state <> 'retrying' AND NOT (l.state = 'replaced' AND l.replaced_by IS NULL)
      AND (l.etag = c.etag OR (
          l.archived_to IS NULL AND l.state IN ('loaded', 'duplicate')
          AND l.loaded_at >= c.day_from AND l.loaded_at < c.day_until
      ))
  )
  AND NOT EXISTS (
    SELECT 1 FROM polled_sources AS p WHERE p.source = c.source AND c.archived_at < p.first_polled_at
  )
ORDER BY c.place

-- name: wrong_first
-- facts of whose rows not exactly the one with the smallest position is marked as the first.
-- out: temp table wrong_first: command_id, and where its first row stands.
DROP TABLE IF EXISTS pg_temp.wrong_first;

CREATE TEMP TABLE wrong_first ON COMMIT DROP AS
WITH placed AS (
    SELECT
        c.command_id, c.file_no, c.line, c.item_no, c.is_first,
        row_number() OVER (PARTITION BY c.command_id ORDER BY a.place, c.line, c.item_no) AS place
    FROM command_rows AS c
    JOIN (SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger) AS a USING (file_no)
)
SELECT command_id, file_no, line, item_no
FROM placed
WHERE place = 1 AND command_id IN (SELECT command_id FROM placed WHERE is_first <> (place = 1));

ANALYZE pg_temp.wrong_first

-- name: mark_first
-- of each of these facts the row with the smallest position is the first, and no other.
-- in: wrong_first.
UPDATE command_rows AS c
SET is_first = ((c.file_no, c.line, c.item_no) = (w.file_no, w.line, w.item_no))
FROM wrong_first AS w
WHERE c.command_id = w.command_id
