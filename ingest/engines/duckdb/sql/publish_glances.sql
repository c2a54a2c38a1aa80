-- publish_glances.sql: of each source what is left to fix, and when its files came.
-- A redrive never was an object. A file of a disk that was moved there keeps its old time.
CREATE TABLE published.glances AS
WITH came AS (
    SELECT
        source, to_fix,
        CASE
            WHEN redrive_of IS NOT NULL THEN NULL
            WHEN bucket = 'file' THEN greatest(last_modified, loaded_at)
            ELSE last_modified
        END AS came_at
    FROM published.ledger
)
SELECT
    source, sum(to_fix)::BIGINT AS open, count(*) FILTER (to_fix > 0) AS files, max(came_at) AS last_file_at,
    max(DISTINCT epoch_us(came_at) // 3600000000, 336) AS hours -- since 1970, the newest first: those of two weeks, or more
FROM came
GROUP BY source
