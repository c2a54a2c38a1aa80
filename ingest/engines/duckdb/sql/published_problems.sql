-- published_problems.sql: open failed lines of some files by the rule they break, most first, each with the files that have
-- most of them.
-- in: matching (file rows), $files (of a rule, at most).
-- out: code, open, files, sources, formats, first_seen, last_seen, most (file_id, key, source, open).
WITH broken AS (
    SELECT c.code, c.open, m.file_no, m.source, m.format, m.dealt_at
    FROM published.failure_codes AS c
    JOIN matching AS m USING (file_no)
    WHERE c.open > 0 AND m.to_fix > 0
),
problem AS (
    SELECT
        code, sum(open)::BIGINT AS open, count(*) AS files, list_sort(list(DISTINCT source)) AS sources,
        list_sort(list(DISTINCT format)) AS formats, min(dealt_at) AS first_seen, max(dealt_at) AS last_seen,
        max({'open': open, 'file_no': file_no}, $files) AS most
    FROM broken
    GROUP BY code
),
named AS ( -- keys are long: only those of the files that are told are read
    SELECT
        p.code,
        list({'file_id': m.file_id, 'key': m.key, 'source': m.source, 'open': p.one.open}
            ORDER BY p.one.open DESC, p.one.file_no DESC) AS most
    FROM (SELECT code, unnest(most) AS one FROM problem) AS p
    JOIN matching AS m ON m.file_no = p.one.file_no
    GROUP BY p.code
)
SELECT problem.* REPLACE (named.most AS most)
FROM problem
JOIN named USING (code)
ORDER BY open DESC, code
