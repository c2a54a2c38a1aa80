-- published_states.sql: how many files of these sources are in each state.
-- in: $sources.   out: source, state, files.
SELECT source, state, files
FROM published.states
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
ORDER BY source, state
