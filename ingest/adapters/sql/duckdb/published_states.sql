-- published_states.sql: how many files of these sources are in each state.
-- in: $sources.   out: source, state, files.
SELECT source, state, count(*) AS files
FROM published.ledger
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
GROUP BY source, state
ORDER BY source, state
