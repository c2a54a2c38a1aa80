-- archives.sql: where archived objects should be, by the folder of their day.
-- out: source, bucket, folder.
SELECT DISTINCT
    source, bucket,
    coalesce(nullif(regexp_extract(archived_to, '^.*?/?\d{4}/\d{2}/\d{2}/'), ''), archived_to) AS folder
FROM ledger
WHERE archived_to IS NOT NULL
ORDER BY ALL
