-- published_glances.sql: of each source what is left to fix, and when its newest file came.
-- in: $sources.   out: source, open, files (that have open lines), last_file_at.
SELECT
    source, sum(to_fix)::BIGINT AS open, count(*) FILTER (to_fix > 0) AS files,
    -- A redrive never was an object. A file of a disk that was moved there keeps its old time.
    max(CASE WHEN bucket = 'file' THEN greatest(last_modified, loaded_at) ELSE last_modified END)
        FILTER (redrive_of IS NULL) AS last_file_at
FROM published.ledger
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
GROUP BY source
ORDER BY source
