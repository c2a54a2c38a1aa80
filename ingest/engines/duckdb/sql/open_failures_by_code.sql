-- open_failures_by_code.sql: open failed lines over all files, by code, those with most lines first.
-- in: $source, $since, $code, each NULL for any.   out: code, open, files, and of the newest file id, bucket, key, format.
WITH wanted AS (
    SELECT file_no, file_id, bucket, key, format
    FROM ledger
    WHERE
        state IN ('loaded', 'rejected') -- of others no line can be sent again
        AND ($source IS NULL OR source = $source) AND ($since IS NULL OR coalesce(loaded_at, last_modified) >= $since)
),
broken AS (
    SELECT file_no, unnest(codes) AS code FROM failed_line_rows WHERE redriven_by IS NULL
),
by_file AS (
    SELECT file_no, code, count(*) AS open FROM broken WHERE $code IS NULL OR code = $code GROUP BY ALL
)
SELECT
    code, sum(open)::BIGINT AS open, count(*) AS files, arg_max(file_id, file_no) AS file_id,
    arg_max(bucket, file_no) AS bucket, arg_max(key, file_no) AS key, arg_max(format, file_no) AS format
FROM by_file
JOIN wanted USING (file_no)
GROUP BY code
ORDER BY open DESC, code
