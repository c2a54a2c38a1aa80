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
    SELECT count(*) AS open_failures FROM failed_line_rows WHERE file_no = l.file_no AND redriven_by IS NULL
) AS f
WHERE l.file_no = ANY($numbers)

-- name: shown_redrives
-- the redrives of some files, newest first.
-- in: $ids.   out: file_no.
SELECT file_no FROM ledger WHERE redrive_of = ANY($ids) ORDER BY file_no DESC

-- name: shown_days
-- what was loaded, by UTC day and source.
-- in: conditions, $last.   out: day (days since 1970), source, files, lines, failed, open.
WITH day AS (
    SELECT
        floor(extract(epoch FROM {dealt_at}) / 86400)::bigint AS day, l.source, count(*) AS files,
        coalesce(sum(l.lines - l.blank - l.failed) FILTER (WHERE l.state = 'loaded'), 0)::bigint AS lines,
        coalesce(sum(l.failed) FILTER (WHERE l.state IN ('loaded', 'rejected')), 0)::bigint AS failed,
        coalesce(sum(f.open) FILTER (WHERE l.state IN ('loaded', 'rejected')), 0)::bigint AS open
    FROM ledger AS l
    LEFT JOIN (
        SELECT file_no, count(*) AS open FROM failed_line_rows WHERE redriven_by IS NULL GROUP BY file_no
    ) AS f ON f.file_no = l.file_no
    WHERE {matching}
    GROUP BY day, l.source
)
SELECT day, source, files, lines, failed, open
FROM (SELECT *, dense_rank() OVER (ORDER BY day DESC) AS place FROM day) AS placed
WHERE place <= $last
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
    FROM (SELECT file_no, count(*) AS open FROM failed_line_rows WHERE redriven_by IS NULL GROUP BY file_no) AS f
    JOIN ledger AS l USING (file_no)
    WHERE l.failed > 0 AND l.state IN ('loaded', 'rejected')
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
WITH broken AS (
    SELECT f.code, f.open, l.file_no, l.file_id, l.key, l.source, l.format, {dealt_at} AS dealt_at
    FROM (
        SELECT file_no, c.code, count(*) AS open
        FROM failed_line_rows
        CROSS JOIN LATERAL unnest(codes) AS c (code)
        WHERE redriven_by IS NULL
        GROUP BY file_no, c.code
    ) AS f
    JOIN ledger AS l USING (file_no)
    WHERE l.state IN ('loaded', 'rejected') AND {matching}
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY code ORDER BY open DESC, file_no DESC) AS place FROM broken
)
SELECT
    code, sum(open)::bigint AS open, count(*) AS files, array_agg(DISTINCT source ORDER BY source) AS sources,
    array_agg(DISTINCT format ORDER BY format) AS formats, min(dealt_at) AS first_seen, max(dealt_at) AS last_seen,
    (json_agg(json_build_object('file_id', file_id, 'key', key, 'source', source, 'open', open) ORDER BY place)
        FILTER (WHERE place <= $files))::text AS most
FROM placed
GROUP BY code
ORDER BY open DESC, code

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
    code, sum(lines)::bigint AS lines, sum(open)::bigint AS open, (array_agg(first_line ORDER BY file_no))[1] AS first_line
FROM (
    SELECT
        f.file_no, c.code, count(*) AS lines, count(*) FILTER (WHERE f.redriven_by IS NULL) AS open,
        min(f.line) AS first_line
    FROM ledger AS l
    JOIN failed_line_rows AS f USING (file_no)
    CROSS JOIN LATERAL unnest(f.codes) AS c (code)
    WHERE l.file_id = ANY($ids)
    GROUP BY f.file_no, c.code
) AS broken
GROUP BY code
ORDER BY lines DESC, code

-- name: shown_failure_places
-- where in them the first lines break each rule most, each line once.
-- in: $ids, $lines (that are looked at), $places (of a rule, at most).
-- out: code, pointer, message, lines, open, places (how many the rule has).
WITH first AS (
    SELECT f.file_no, f.line, f.item, f.failures, f.redriven_by IS NULL AS is_open
    FROM ledger AS l
    JOIN failed_line_rows AS f USING (file_no)
    WHERE l.file_id = ANY($ids)
    ORDER BY f.file_no, f.line, f.item
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
FROM ledger AS l
JOIN failed_line_rows AS f USING (file_no)
WHERE l.file_id = ANY($ids) AND ($code::text IS NULL OR $code::text = ANY(f.codes)) AND f.line >= $first_line
  AND (NOT $open_only OR f.redriven_by IS NULL)
  AND ($pointer::text IS NULL OR EXISTS (
      SELECT 1 FROM json_to_recordset(f.failures) AS r (code text, pointer text)
      WHERE r.pointer = $pointer::text AND ($code::text IS NULL OR r.code = $code::text)
  ))
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
