-- reconcile.sql: whether the tables agree with each other, with the bucket and with the archive.

-- name: ledger
-- what every ledger row says of its object, beside what was listed, in the order in which files came.
-- A file is in a landing where SourceFile.is_same says that it is one of those listed.
-- in: landings (bucket, key, etag, version_id, size_bytes, last_modified), archives (bucket, key, size_bytes).
-- The caller puts in place of {since} when listing began.
SELECT
    l.file_id, l.source, l.bucket, l.key, l.size_bytes, l.read_bytes, l.state, l.last_modified, l.loaded_at, l.failed, l.attempts,
    l.next_try_at, l.error, l.redrive_of, l.archived_to, l.deleted_at,
    coalesce(f.open_failures, 0) AS open_failures,
    t.file_id IS NOT NULL AS in_landing,
    a.key IS NOT NULL OR h.file_id IS NOT NULL AS in_archive
FROM ledger AS l
LEFT JOIN (
    SELECT file_no, count(*) AS open_failures FROM failed_line_rows WHERE redriven_by IS NULL GROUP BY file_no
) AS f USING (file_no)
LEFT JOIN (
    SELECT DISTINCT k.file_id
    FROM ledger AS k
    JOIN landings AS m USING (bucket, key, size_bytes)
    WHERE (m.version_id IS NULL OR k.version_id IS NULL OR m.version_id = k.version_id)
      AND CASE WHEN m.etag <> '' AND k.etag <> '' THEN m.etag = k.etag ELSE k.last_modified = m.last_modified END
) AS t USING (file_id)
LEFT JOIN (SELECT DISTINCT bucket, key, size_bytes FROM archives) AS a
    ON a.bucket = l.bucket AND a.key = l.archived_to AND a.size_bytes = l.size_bytes
LEFT JOIN (
    SELECT DISTINCT file_id FROM history WHERE action = 'archived' AND "at" >= {since}
) AS h USING (file_id)
ORDER BY l.file_no

-- name: disagreements
-- where the ledger and the rows of its files do not say the same.
-- out: file_id (NULL: rows of no file), source, key, what, expected, found.
WITH told AS (
    SELECT l.file_no, l.file_id, l.state, t.what, t.rows
    FROM ledger AS l
    CROSS JOIN LATERAL (
        VALUES ('records', l.records), ('sets', l.sets), ('aliases', l.aliases), ('failed_lines', l.failed)
    ) AS t (what, rows)
),
held AS (
    SELECT file_no, kind::text || CASE kind WHEN 'alias' THEN 'es' ELSE 's' END AS what, count(*) AS rows
    FROM command_rows
    GROUP BY file_no, kind
    UNION ALL
    SELECT file_no, 'failed_lines', count(*) FROM failed_line_rows GROUP BY file_no
),
compared AS (
    SELECT
        what, t.file_id, coalesce(t.state IN ('loaded', 'rejected', 'ignored'), FALSE) AS may_have_rows,
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
    SELECT file_id, what, expected::text AS expected, found::text AS found
    FROM compared
    WHERE expected <> found AND may_have_rows
    UNION ALL
    SELECT
        file_id, CASE WHEN file_id IS NULL THEN 'rows_without_file' ELSE 'leftover_rows' END, '0', sum(found)::text
    FROM compared
    WHERE expected <> found AND NOT may_have_rows
    GROUP BY file_id
    UNION ALL
    SELECT l.file_id, 'redriven_by', '0', count(*)::text
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

-- name: unjoined_aliases
-- aliases whose two keys are not linked to the same person.
-- out: people_space, person_key, alias_key.
SELECT DISTINCT c.people_space, c.person_key, c.alias_key
FROM full_rows AS c
LEFT JOIN person_links AS one ON one.people_space = c.people_space AND one.identity_key = c.person_key
LEFT JOIN person_links AS other ON other.people_space = c.people_space AND other.identity_key = c.alias_key
WHERE c.kind = 'alias'
  AND c.person_key <> c.alias_key
  AND (one.person_id IS DISTINCT FROM other.person_id OR one.person_id IS NULL)

-- name: unfounded_links
-- how many keys are linked that no alias names, that are linked twice, or whose person is not named
-- by the smallest key.   out: count.
WITH named AS (
    SELECT people_space, person_key AS identity_key FROM full_rows WHERE kind = 'alias'
    UNION
    SELECT people_space, alias_key FROM full_rows WHERE kind = 'alias'
)
SELECT
    (
        SELECT count(*) FROM person_links AS p
        WHERE NOT EXISTS (
            SELECT 1 FROM named AS n WHERE n.people_space = p.people_space AND n.identity_key = p.identity_key
        )
    )
    + (SELECT count(*) - count(DISTINCT (people_space, identity_key)) FROM person_links)
    + (
        SELECT count(*)
        FROM (SELECT 1 FROM person_links GROUP BY people_space, person_id HAVING min(identity_key) <> person_id) AS misnamed
    ) AS unfounded
