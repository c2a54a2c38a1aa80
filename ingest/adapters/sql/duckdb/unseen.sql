-- unseen.sql: of a listing, what the ledger has not dealt with and has not put off.
-- What was replaced is new again where the bucket keeps no versions: its key has come back to those bytes.
-- in: listed (Arrow: place, file_id), $now.   out: place.
SELECT place
FROM listed
ANTI JOIN (
    SELECT file_id FROM ledger
    WHERE (state <> 'retrying' OR next_try_at > $now) AND NOT (state = 'replaced' AND version_id IS NULL)
) AS done USING (file_id)
ORDER BY place
