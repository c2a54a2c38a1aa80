-- published_days.sql: what was loaded, by UTC day and source.
-- in: matching (file rows), $last.   out: day (days since 1970), source, files, lines, failed, open.
SELECT
    epoch_us(dealt_at) // 86400000000 AS day, source, count(*) AS files,
    coalesce(sum(lines - blank - failed) FILTER (state = 'loaded'), 0)::BIGINT AS lines,
    coalesce(sum(failed) FILTER (state IN ('loaded', 'rejected')), 0)::BIGINT AS failed,
    sum(to_fix)::BIGINT AS open
FROM matching
GROUP BY day, source
QUALIFY dense_rank() OVER (ORDER BY day DESC) <= $last
ORDER BY day, source
