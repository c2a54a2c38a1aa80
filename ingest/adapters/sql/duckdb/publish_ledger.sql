-- publish_ledger.sql: the ledger as pages show it, with what they sort and filter by.
-- in: $as_of. A file that waits for another attempt has no time of its own: it counts when it is due, never later than now.
CREATE TABLE published.ledger AS
SELECT
    l.* EXCLUDE (position),
    substr(l.position, 19) AS natural_key, -- behind the arrival
    hash(l.file_id) AS id_hash, -- a million texts take long to look through
    coalesce(
        l.loaded_at, CASE WHEN l.next_try_at IS NOT NULL THEN least(l.next_try_at, $as_of) END, l.last_modified
    ) AS dealt_at,
    coalesce(f.open_failures, 0) AS open_failures
FROM warehouse.ledger AS l
LEFT JOIN (
    SELECT file_no, count(*) AS open_failures
    FROM warehouse.failed_line_rows
    WHERE redriven_by IS NULL
    GROUP BY file_no
) AS f USING (file_no)
