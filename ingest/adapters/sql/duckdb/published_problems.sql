-- published_problems.sql: open failed lines of some files by the rule they break, most first, each with the files that have
-- most of them.
-- in: matching (file rows), $files (of a rule, at most).
-- out: code, open, files, sources, formats, first_seen, last_seen, most (file_id, key, source, open).
WITH broken AS (
    SELECT c.code, c.open, m.file_no, m.file_id, m.key, m.source, m.format, m.dealt_at
    FROM published.failure_codes AS c
    JOIN matching AS m USING (file_no)
    WHERE c.open > 0 AND m.to_fix > 0
),
largest AS (
    SELECT code, list({'file_id': file_id, 'key': key, 'source': source, 'open': open} ORDER BY place) AS most
    FROM (SELECT *, row_number() OVER (PARTITION BY code ORDER BY open DESC, file_no DESC) AS place FROM broken)
    WHERE place <= $files
    GROUP BY code
)
SELECT
    code, sum(open)::BIGINT AS open, count(*) AS files, list_sort(list(DISTINCT source)) AS sources,
    list_sort(list(DISTINCT format)) AS formats, min(dealt_at) AS first_seen, max(dealt_at) AS last_seen,
    any_value(most) AS most
FROM broken
JOIN largest USING (code)
GROUP BY code
ORDER BY open DESC, code
