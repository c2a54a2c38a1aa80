-- disagreements.sql: where the ledger and the rows of its files do not say the same.
-- out: file_id (NULL: rows of no file), source, key, what, expected, found.
WITH told AS (
    SELECT
        file_no, file_id, state,
        unnest(['records', 'sets', 'aliases', 'failed_lines']) AS what, unnest([records, sets, aliases, failed]) AS rows
    FROM ledger
),
held AS (
    SELECT file_no, kind::VARCHAR || CASE kind WHEN 'alias' THEN 'es' ELSE 's' END AS what, count(*) AS rows
    FROM command_rows
    GROUP BY ALL
    UNION ALL
    SELECT file_no, 'failed_lines', count(*) FROM failed_line_rows GROUP BY ALL
),
compared AS (
    SELECT
        file_no, what, t.file_id, coalesce(t.state IN ('loaded', 'rejected', 'ignored'), FALSE) AS may_have_rows,
        CASE
            WHEN t.state = 'loaded' OR (t.state = 'rejected' AND what = 'failed_lines') THEN t.rows
            WHEN t.state = 'ignored' AND what = 'failed_lines' THEN least(t.rows, coalesce(h.rows, 0))  -- once rejected
            ELSE 0
        END AS expected,
        coalesce(h.rows, 0) AS found
    FROM told AS t
    FULL JOIN held AS h USING (file_no, what)
),
found AS (
    SELECT file_id, what, expected::VARCHAR AS expected, found::VARCHAR AS found
    FROM compared
    WHERE expected <> found AND may_have_rows
    UNION ALL
    SELECT
        file_id, CASE WHEN file_id IS NULL THEN 'rows_without_file' ELSE 'leftover_rows' END, '0', sum(found)::VARCHAR
    FROM compared
    WHERE expected <> found AND NOT may_have_rows
    GROUP BY file_id
    UNION ALL
    SELECT l.file_id, 'redriven_by', '0', count(*)::VARCHAR
    FROM failed_line_rows AS f
    JOIN ledger AS l USING (file_no)
    LEFT JOIN ledger AS r ON r.file_id = f.redriven_by
    WHERE f.redriven_by IS NOT NULL AND r.state IS DISTINCT FROM 'loaded'
    GROUP BY l.file_id
    UNION ALL
    SELECT d.file_id, 'duplicate_of', d.duplicate_of, coalesce(o.state, 'unknown')
    FROM ledger AS d
    LEFT JOIN ledger AS o ON o.file_id = d.duplicate_of
    WHERE d.state = 'duplicate'
      AND NOT EXISTS (SELECT 1 FROM ledger AS l WHERE l.state = 'loaded' AND l.sha256 = d.sha256)
      -- Of a rejected file that was redriven, the redrive is loaded.
      AND NOT EXISTS (SELECT 1 FROM ledger AS r WHERE r.state = 'loaded' AND r.redrive_of = d.duplicate_of)
)
SELECT f.file_id, l.source, l.key, f.what, f.expected, f.found
FROM found AS f
LEFT JOIN ledger AS l USING (file_id)
ORDER BY l.file_no, f.what
