-- unseen.sql: of a listing, what the ledger has not dealt with and has not put off.
-- What was replaced is new again where its key came back to those bytes (a bucket that keeps no versions), or where it
-- was closed since its object seemed to be gone, and is listed again.
-- in: listed (Arrow: place, file_id, version_id), $now, $latest (no file is put off beyond that: a clock was wrong).
-- out: place, is_known (it has a row).
SELECT l.place, k.file_id IS NOT NULL AS is_known
FROM listed AS l
LEFT JOIN ledger AS k USING (file_id)
WHERE k.file_id IS NULL
   OR (k.state = 'retrying' AND NOT (k.next_try_at > $now AND k.next_try_at <= $latest))
   OR (k.state = 'replaced' AND (k.replaced_by IS NULL OR k.version_id IS NULL OR l.version_id IS NULL))
ORDER BY l.place
