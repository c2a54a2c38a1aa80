-- reconcile.sql: whether the tables agree with each other, with the bucket and with the archive.

-- name: unknown_copies
-- of copies in an archive, those that no row of the ledger tells of.
-- A row tells of a copy by its name; by the key and the ETag; or it is of a file that was loaded on the day of the copy
-- and is just being archived. What waits for its object, or was closed since that was gone, tells of nothing.
-- What was archived before the first poll of a source that skips what is there is not this ledger's.
-- in: copies (Arrow: place, source, bucket, archived_to, key, plain_key (without a hash), etag, size_bytes, archived_at,
-- day_from, day_until).   out: place.
WITH candidates AS (
    SELECT c.* FROM copies AS c
    ANTI JOIN ledger AS l ON l.bucket = c.bucket AND l.archived_to = c.archived_to
),
of_keys AS (
    SELECT bucket, key, etag, size_bytes, state, archived_to, loaded_at
    FROM ledger
    WHERE redrive_of IS NULL AND state <> 'retrying' AND NOT (state = 'replaced' AND replaced_by IS NULL)
      AND (bucket, key) IN (SELECT bucket, unnest([key, plain_key]) FROM candidates)
)
SELECT c.place
FROM candidates AS c
WHERE NOT EXISTS (
    SELECT 1 FROM of_keys AS l
    WHERE l.bucket = c.bucket AND l.key IN (c.key, c.plain_key) AND l.size_bytes = c.size_bytes
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
-- out: temp table wrong_first: command_id, and where its first row stands (as `rowid`).
CREATE OR REPLACE TEMP TABLE wrong_first AS
WITH arrived AS (
    SELECT file_no, row_number() OVER (ORDER BY position, file_no) AS place FROM ledger
),
placed AS (
    SELECT
        c.command_id, c.is_first, c.rowid AS row_no,
        (a.place::HUGEINT * 4294967296 * 281474976710656) + (c.line::HUGEINT * 4294967296) + c.item_no AS place
    FROM command_rows AS c
    JOIN arrived AS a USING (file_no)
)
SELECT command_id, arg_min(row_no, place) AS row_no
FROM placed
GROUP BY command_id
HAVING count(*) FILTER (is_first) <> 1 OR NOT arg_min(is_first, place)

-- name: mark_first
-- of each of these facts the row with the smallest position is the first, and no other.
-- in: wrong_first.
UPDATE command_rows
SET is_first = (command_rows.rowid = w.row_no)
FROM wrong_first AS w
WHERE command_rows.command_id = w.command_id
