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
    coalesce(r.of_file_no, l.file_no) AS of_file_no, -- of a redrive that of the file whose lines it fixes
    coalesce(f.open_failures, 0) AS open_failures,
    CASE WHEN l.state IN ('loaded', 'rejected') THEN coalesce(f.open_failures, 0) ELSE 0 END AS to_fix,
    coalesce(f.without_text, 0) AS without_text, -- failed lines that are told here without their texts
    coalesce(f.open_without_text, 0) AS open_without_text
FROM warehouse.ledger AS l
LEFT JOIN (
    SELECT redriven.file_no, original.file_no AS of_file_no
    FROM warehouse.ledger AS redriven
    JOIN warehouse.ledger AS original ON original.file_id = redriven.redrive_of
    WHERE redriven.redrive_of IS NOT NULL
) AS r ON r.file_no = l.file_no
LEFT JOIN (
    SELECT
        file_no, count(*) FILTER (redriven_by IS NULL) AS open_failures,
        count(*) FILTER (text_bytes IS NULL) AS without_text,
        count(*) FILTER (text_bytes IS NULL AND redriven_by IS NULL) AS open_without_text
    FROM published.failed_lines
    GROUP BY file_no
) AS f ON f.file_no = l.file_no
