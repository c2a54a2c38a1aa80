-- unseen.sql: of a listing, what the ledger has not dealt with and has not put off.
-- in: listed (Arrow: place, file_id), $now.   out: place.
SELECT place
FROM listed
ANTI JOIN (
    SELECT file_id FROM ledger WHERE state <> 'retrying' OR next_try_at > $now
) AS done USING (file_id)
ORDER BY place
