-- published.sql: the copy that pages read, asked.

-- name: published_days
-- what was loaded, by UTC day and source.
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

-- name: published_failed_lines
-- where some failed lines are: what is long is not touched.
-- in: wanted (Arrow: file_id), $code, $pointer (NULL: any), $open_only, $first_line, $offset, $limit.
-- out: row.
SELECT rowid AS row
FROM published.failed_lines
WHERE file_id IN (SELECT file_id FROM wanted)
  AND ($code::VARCHAR IS NULL OR list_contains(codes, $code))
  AND (
      $pointer::VARCHAR IS NULL
      OR list_bool_or([r.pointer = $pointer AND coalesce(r.code = $code, TRUE) FOR r IN rules])
  )
  AND line >= $first_line
  AND NOT ($open_only AND redriven_by IS NOT NULL)
ORDER BY file_no, line, item
LIMIT $limit OFFSET $offset

-- name: published_failure_groups
-- failed lines of some files by the rules they break, and the places where most break one.
-- in: wanted (Arrow: file_id), $places (of a rule, at most).   out: code, lines, open, first_line, places, more_places.
WITH code AS (
    SELECT code, sum(lines)::BIGINT AS lines, sum(open)::BIGINT AS open, arg_min(first_line, file_no) AS first_line
    FROM published.failure_codes
    WHERE file_id IN (SELECT file_id FROM wanted)
    GROUP BY code
),
place AS (
    SELECT
        code, pointer, arg_min(message, file_no) AS message, sum(lines)::BIGINT AS lines, sum(open)::BIGINT AS open
    FROM published.failure_places
    WHERE file_id IN (SELECT file_id FROM wanted)
    GROUP BY code, pointer
),
shown AS (
    SELECT code, pointer, message, lines, open, count(*) OVER (PARTITION BY code) AS places
    FROM place
    QUALIFY row_number() OVER (PARTITION BY code ORDER BY lines DESC, pointer) <= $places
)
SELECT
    code.code, code.lines, code.open, code.first_line,
    list((shown.pointer, shown.message, shown.lines, shown.open) ORDER BY shown.lines DESC, shown.pointer)
        FILTER (shown.code IS NOT NULL) AS places, -- NULL: of lines without their texts no place is told
    coalesce(any_value(shown.places) - count(*), 0) AS more_places
FROM code
LEFT JOIN shown ON shown.code = code.code
GROUP BY ALL
ORDER BY code.lines DESC, code.code

-- name: published_glances
-- each source in short.
-- in: $sources.   out: source, open, files (that have open lines), last_file_at, hours (in which files came).
SELECT source, open, files, last_file_at, coalesce(hours, []) AS hours
FROM published.glances
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
ORDER BY source

-- name: published_history
-- what was done to a file, in order.
-- in: $file_id.
SELECT * EXCLUDE (id_hash)
FROM published.history
WHERE id_hash = hash($file_id) AND file_id = $file_id
ORDER BY "at"

-- name: published_lines
-- failed lines, whole, in order of their rows. The caller adds WHERE with the rows as plain numbers:
-- then, and not with bound ones or where the numbers are told too, the engine decompresses long lines of these rows only.
SELECT * EXCLUDE (file_no, rules, text_bytes)
FROM published.failed_lines

-- name: published_open_among
-- which of some places of a file are open, and whether their texts are here.
-- in: wanted (Arrow: line, item), $file_id.   out: line, item, has_text.
SELECT line, item, text_bytes IS NOT NULL AS has_text
FROM published.failed_lines
SEMI JOIN wanted USING (line, item)
WHERE file_id = $file_id AND redriven_by IS NULL

-- name: published_open_lines
-- where the open lines of a file are that can be mended, and whose texts are here, some MB of
-- them at a time.
-- in: $file_id.   out: rows (in order of line, item), in that order.
WITH chosen AS (
    SELECT
        rowid AS row, line, item,
        sum(text_bytes + 500) OVER (ORDER BY line, item ROWS UNBOUNDED PRECEDING) // 2000000 AS part
    FROM published.failed_lines
    WHERE file_id = $file_id AND mendable AND redriven_by IS NULL AND text_bytes IS NOT NULL
)
SELECT list(row ORDER BY line, item) AS rows
FROM chosen
GROUP BY part
ORDER BY part

-- name: published_problems
-- open failed lines of some files by the rule they break, most first, each with the files that have
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

-- name: published_redrives
-- the redrives of some files, newest first.
-- in: wanted (Arrow: file_no).   out: row.
SELECT rowid
FROM published.ledger
WHERE of_file_no IN (SELECT file_no FROM wanted) AND file_no <> of_file_no
ORDER BY file_no DESC

-- name: published_related
-- files that have to do with one.
-- Ids are compared by their hashes, which takes a tenth of the time.
-- in: what its row says: $file_id, $bucket, $key, $redrive_of, $duplicate_of, $replaced_by.   out: row, relation.
WITH related AS (
    SELECT
        rowid AS row, file_no,
        CASE
            WHEN redrive_of = $file_id THEN 'redrive'
            WHEN id_hash = hash($redrive_of) THEN 'original'
            WHEN duplicate_of = $file_id THEN 'duplicate'
            WHEN id_hash = hash($duplicate_of) THEN 'duplicate_of'
            WHEN replaced_by = $file_id THEN 'replaces'
            WHEN id_hash = hash($replaced_by) THEN 'replaced_by'
            -- A redrive has the key of its original, and is no version of the object.
            WHEN key = $key AND bucket = $bucket AND redrive_of IS NULL AND $redrive_of::VARCHAR IS NULL THEN 'version'
        END AS relation
    FROM published.ledger
    WHERE id_hash <> hash($file_id)
)
SELECT row, relation
FROM related
WHERE relation IS NOT NULL
ORDER BY
    list_position(
        ['redrive', 'original', 'duplicate', 'duplicate_of', 'replaces', 'replaced_by', 'version'], relation
    ),
    file_no DESC
LIMIT 200

-- name: published_rows
-- some rows of the published ledger, whole.
-- in: wanted (Arrow: row).
SELECT rowid AS row, * EXCLUDE (id_hash, natural_key, of_file_no) FROM published.ledger WHERE rowid IN (SELECT row FROM wanted)

-- name: published_states
-- how many files of these sources are in each state.
-- in: $sources.   out: source, state, files.
SELECT source, state, files
FROM published.states
WHERE source IN (SELECT unnest($sources::VARCHAR[]))
ORDER BY source, state
