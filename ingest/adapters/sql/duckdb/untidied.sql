-- untidied.sql: loaded files of a source, and copies, whose objects are still in the landing.
-- in: $source.
SELECT
    l.*,
    (SELECT count(*) FROM failed_line_rows AS f WHERE f.file_no = l.file_no AND f.redriven_by IS NULL) AS open_failures
FROM ledger AS l
WHERE l.source = $source AND l.state IN ('loaded', 'duplicate') AND l.deleted_at IS NULL AND l.redrive_of IS NULL
ORDER BY l.file_no DESC
