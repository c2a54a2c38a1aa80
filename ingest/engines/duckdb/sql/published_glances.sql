-- published_glances.sql: each source in short.
-- in: $sources.   out: source, open, files (that have open lines), last_file_at, hours (in which files came).
SELECT source, open, files, last_file_at, coalesce(hours, []) AS hours
FROM published.glances
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
ORDER BY source
