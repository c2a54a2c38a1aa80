-- published.sql: what pages show, asked of the tables as they are. The caller puts conditions on `l` in place of {matching}.

-- name: shown_files
-- ledger rows, whole, as pages show them.
-- in: $numbers (file_nos), $as_of.
SELECT
    l.*, {dealt_at} AS dealt_at, f.open_failures,
    CASE WHEN l.state IN ('loaded', 'rejected') THEN f.open_failures ELSE 0 END AS to_fix,
    0::bigint AS without_text, 0::bigint AS open_without_text
FROM ledger AS l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(open), 0)::bigint AS open_failures FROM failure_counts WHERE file_no = l.file_no AND code = ''
) AS f
WHERE l.file_no = ANY($numbers)

-- name: shown_redrives
-- the redrives of some files, newest first.
-- in: $ids.   out: file_no.
SELECT file_no FROM ledger WHERE redrive_of = ANY($ids) ORDER BY file_no DESC

-- name: shown_first_day
-- the first of the last days that have any. From day to day by the index: the ledger is not read through.
-- in: conditions, $last.   out: day (NULL: there is none).
WITH RECURSIVE last AS (
    (
        SELECT ({dealt_at})::date AS day, 1 AS place
        FROM ledger AS l
        WHERE {matching}
        ORDER BY coalesce(l.loaded_at, l.next_try_at, l.last_modified) DESC NULLS LAST
        LIMIT 1
    )
    UNION ALL
    SELECT before.day, last.place + 1
    FROM last
    CROSS JOIN LATERAL (
        SELECT ({dealt_at})::date AS day
        FROM ledger AS l
        WHERE {matching} AND coalesce(l.loaded_at, l.next_try_at, l.last_modified) < last.day::timestamptz
        ORDER BY coalesce(l.loaded_at, l.next_try_at, l.last_modified) DESC NULLS LAST
        LIMIT 1
    ) AS before
    WHERE last.place < $last
)
SELECT min(day)::timestamptz AS day FROM last

-- name: shown_days
-- what was loaded, by UTC day and source.
-- in: conditions, $first_day.   out: day (days since 1970), source, files, lines, failed, open.
SELECT
    ({dealt_at})::date - date '1970-01-01' AS day, l.source, count(*) AS files,
    coalesce(sum(l.lines - l.blank - l.failed) FILTER (WHERE l.state = 'loaded'), 0)::bigint AS lines,
    coalesce(sum(l.failed) FILTER (WHERE l.state IN ('loaded', 'rejected')), 0)::bigint AS failed,
    coalesce(sum(f.open) FILTER (WHERE l.state IN ('loaded', 'rejected')), 0)::bigint AS open
FROM ledger AS l
LEFT JOIN failure_counts AS f ON f.file_no = l.file_no AND f.code = '' AND f.open > 0
WHERE {matching} AND coalesce(l.loaded_at, l.next_try_at, l.last_modified) >= $first_day
GROUP BY day, l.source
ORDER BY day, source

-- name: shown_sources
-- every source that has a file, one step of the index each.
WITH RECURSIVE found AS (
    (SELECT source FROM ledger ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (SELECT l.source FROM ledger AS l WHERE l.source > found.source ORDER BY l.source LIMIT 1)
    FROM found
    WHERE found.source IS NOT NULL
)
SELECT source FROM found WHERE source IS NOT NULL

-- name: shown_states
-- how many files of these sources are in each state; a redrive counts as its file.
-- in: $sources.   out: source, state, files.
SELECT source, state, sum(files)::bigint AS files
FROM (
    SELECT source, state, count(*) AS files
    FROM ledger
    WHERE source = ANY($sources) AND redrive_of IS NULL
    GROUP BY source, state
    UNION ALL
    SELECT r.source, r.state, count(DISTINCT r.redrive_of)
    FROM ledger AS r
    LEFT JOIN ledger AS o ON o.file_id = r.redrive_of
    WHERE r.source = ANY($sources) AND r.redrive_of IS NOT NULL
      AND (o.source, o.state) IS DISTINCT FROM (r.source, r.state)
    GROUP BY r.source, r.state
) AS counted
GROUP BY source, state
ORDER BY source, state

-- name: shown_glances
-- each source in short. From hour to hour by the index: the ledger is not read through.
-- in: $sources.   out: source, open, files (that have open lines), last_file_at, hours (in which files came).
WITH RECURSIVE named AS (
    SELECT s.source
    FROM unnest($sources) AS s (source)
    WHERE EXISTS (SELECT 1 FROM ledger AS l WHERE l.source = s.source)
),
came AS NOT MATERIALIZED (
    SELECT source, CASE WHEN bucket = 'file' THEN greatest(last_modified, loaded_at) ELSE last_modified END AS at
    FROM ledger
    WHERE redrive_of IS NULL
),
hour AS (
    SELECT n.source, c.at, 1 AS place
    FROM named AS n
    CROSS JOIN LATERAL (SELECT at FROM came WHERE source = n.source ORDER BY at DESC LIMIT 1) AS c
    UNION ALL
    SELECT h.source, c.at, h.place + 1
    FROM hour AS h
    CROSS JOIN LATERAL (
        SELECT at FROM came WHERE source = h.source AND at < date_trunc('hour', h.at) ORDER BY at DESC LIMIT 1
    ) AS c
    WHERE h.place < 336
),
hours AS (
    SELECT
        source, max(at) AS last_file_at,
        array_agg(floor(extract(epoch FROM at) / 3600)::bigint ORDER BY at DESC) AS hours
    FROM hour
    GROUP BY source
),
fixing AS (
    SELECT l.source, sum(f.open)::bigint AS open, count(*) AS files
    FROM failure_counts AS f
    JOIN ledger AS l USING (file_no)
    WHERE f.code = '' AND f.open > 0 AND l.failed > 0 AND l.state IN ('loaded', 'rejected')
    GROUP BY l.source
)
SELECT
    n.source, coalesce(f.open, 0) AS open, coalesce(f.files, 0) AS files, h.last_file_at,
    coalesce(h.hours, '{}') AS hours
FROM named AS n
LEFT JOIN hours AS h USING (source)
LEFT JOIN fixing AS f USING (source)
ORDER BY n.source

-- name: shown_problems
-- open failed lines of some files by the rule they break, most first, each with the files that have most of them.
-- in: conditions, $files (of a rule, at most), $as_of.
-- out: code, open, files, sources, formats, first_seen, last_seen, most (JSON: file_id, key, source, open).
WITH broken AS MATERIALIZED (
    SELECT f.code, f.open, l.file_no, l.source, l.format, {dealt_at} AS dealt_at
    FROM failure_counts AS f
    JOIN ledger AS l USING (file_no)
    WHERE f.code > '' AND f.open > 0 AND l.state IN ('loaded', 'rejected') AND l.failed > 0 AND {matching}
),
problem AS (
    SELECT
        code, sum(open)::bigint AS open, sum(files)::bigint AS files,
        array_agg(DISTINCT source ORDER BY source) AS sources, array_agg(DISTINCT format ORDER BY format) AS formats,
        min(first_seen) AS first_seen, max(last_seen) AS last_seen
    FROM (
        SELECT
            code, source, format, sum(open) AS open, count(*) AS files, min(dealt_at) AS first_seen,
            max(dealt_at) AS last_seen
        FROM broken
        GROUP BY code, source, format
    ) AS by_source
    GROUP BY code
)
SELECT p.*, m.most
FROM problem AS p
CROSS JOIN LATERAL (
    SELECT
        json_agg(json_build_object('file_id', l.file_id, 'key', l.key, 'source', l.source, 'open', b.open)
            ORDER BY b.open DESC, b.file_no DESC)::text AS most
    FROM (
        SELECT file_no, open FROM broken WHERE code = p.code ORDER BY open DESC, file_no DESC LIMIT $files
    ) AS b
    JOIN ledger AS l USING (file_no)
) AS m
ORDER BY p.open DESC, p.code

-- name: shown_related
-- files that have to do with one.
-- in: what its row says: $file_id, $bucket, $key, $redrive_of, $duplicate_of, $replaced_by.   out: file_no, relation.
WITH related AS (
    SELECT
        file_no,
        CASE
            WHEN redrive_of = $file_id THEN 1
            WHEN file_id = $redrive_of::text THEN 2
            WHEN duplicate_of = $file_id THEN 3
            WHEN file_id = $duplicate_of::text THEN 4
            WHEN replaced_by = $file_id THEN 5
            WHEN file_id = $replaced_by::text THEN 6
            -- A redrive has the key of its original, and is no version of the object.
            WHEN key = $key AND bucket = $bucket AND redrive_of IS NULL AND $redrive_of::text IS NULL THEN 7
        END AS place
    FROM ledger
    WHERE file_id <> $file_id
      AND (redrive_of = $file_id OR duplicate_of = $file_id OR replaced_by = $file_id OR key = $key
           OR file_id IN ($redrive_of::text, $duplicate_of::text, $replaced_by::text))
)
SELECT
    file_no,
    (ARRAY['redrive', 'original', 'duplicate', 'duplicate_of', 'replaces', 'replaced_by', 'version'])[place] AS relation
FROM related
WHERE place IS NOT NULL
ORDER BY place, file_no DESC
LIMIT 200

-- name: shown_failure_codes
-- failed lines of some files by the rules they break, most first.
-- in: $ids.   out: code, lines, open, first_line (of the first file).
SELECT
    f.code, sum(f.lines)::bigint AS lines, sum(f.open)::bigint AS open,
    (array_agg(f.first_line ORDER BY f.file_no, f.first_line))[1] AS first_line
FROM ledger AS l
JOIN failure_counts AS f USING (file_no)
WHERE l.file_id = ANY($ids) AND f.code <> ''
GROUP BY f.code
ORDER BY lines DESC, f.code

-- name: shown_failure_places
-- where in them the first lines break each rule most, each line once.
-- in: $ids, $lines (that are looked at), $places (of a rule, at most).
-- out: code, pointer, message, lines, open, places (how many the rule has).
WITH first AS (
    SELECT f.*
    FROM (SELECT file_no FROM ledger WHERE file_id = ANY($ids) ORDER BY file_no) AS l
    CROSS JOIN LATERAL (  -- in the order of the index
        SELECT file_no, line, item, failures, redriven_by IS NULL AS is_open
        FROM failed_line_rows
        WHERE file_no = l.file_no
        ORDER BY line, item
        LIMIT $lines
    ) AS f
    ORDER BY l.file_no, f.line, f.item
    LIMIT $lines
),
line AS (
    SELECT row_number() OVER (ORDER BY file_no, line, item) AS row, failures, is_open FROM first
),
place AS (
    SELECT
        r.code, coalesce(r.pointer, '') AS pointer, (array_agg(r.message ORDER BY line.row))[1] AS message,
        count(DISTINCT line.row) AS lines, count(DISTINCT line.row) FILTER (WHERE is_open) AS open
    FROM line
    CROSS JOIN LATERAL json_to_recordset(line.failures) AS r (code text, pointer text, message text)
    GROUP BY r.code, coalesce(r.pointer, '')
)
SELECT code, pointer, message, lines, open, places
FROM (
    SELECT
        *, count(*) OVER (PARTITION BY code) AS places,
        row_number() OVER (PARTITION BY code ORDER BY lines DESC, pointer COLLATE "C") AS place
    FROM place
) AS placed
WHERE place <= $places
ORDER BY code, place

-- name: shown_failed_lines
-- failed lines of some files, whole.
-- in: $ids, $code, $pointer (NULL: any), $open_only, $first_line, $offset, $limit.
SELECT
    l.file_id, f.line, f.item, f.byte_offset, f.byte_length, f.raw, f.raw_sha256, f.mendable, f.codes, f.failures,
    f.redriven_at, f.redriven_by, f.context
FROM (SELECT file_no, file_id FROM ledger WHERE file_id = ANY($ids) ORDER BY file_no) AS l
CROSS JOIN LATERAL (  -- in the order of the index
    SELECT *
    FROM failed_line_rows AS f
    WHERE f.file_no = l.file_no AND ($code::text IS NULL OR $code::text = ANY(f.codes)) AND f.line >= $first_line
      AND (NOT $open_only OR f.redriven_by IS NULL)
      AND ($pointer::text IS NULL OR EXISTS (
          SELECT 1 FROM json_to_recordset(f.failures) AS r (code text, pointer text)
          WHERE r.pointer = $pointer::text AND ($code::text IS NULL OR r.code = $code::text)
      ))
    ORDER BY f.line, f.item
    LIMIT $offset::bigint + $limit::bigint
) AS f
ORDER BY l.file_no, f.line, f.item
LIMIT $limit OFFSET $offset

-- name: shown_open_lines
-- the open lines of a file that can be fixed. The caller puts its id in place of {file_id}.
SELECT
    l.file_id, f.line, f.item, f.byte_offset, f.byte_length, f.raw, f.raw_sha256, f.mendable, f.codes, f.failures,
    f.redriven_at, f.redriven_by, f.context
FROM ledger AS l
JOIN failed_line_rows AS f USING (file_no)
WHERE l.file_id = {file_id} AND f.mendable AND f.redriven_by IS NULL
ORDER BY f.line, f.item

-- name: shown_open_among
-- which of some places of a file are open.
-- in: wanted (line, item), $file_id.   out: line, item.
SELECT f.line, f.item
FROM ledger AS l
JOIN failed_line_rows AS f USING (file_no)
JOIN wanted AS w ON w.line = f.line AND w.item = f.item
WHERE l.file_id = $file_id AND f.redriven_by IS NULL
