-- publish.sql: the copy that pages read, made.

-- name: publish_ledger
-- the ledger as pages show it, with what they sort and filter by.
-- in: $as_of. A file that waits for another attempt has no time of its own: it counts when it is due, never later than now.
CREATE TABLE published.ledger AS
SELECT
    l.* EXCLUDE (position),
    substr(l.position, 19) AS natural_key, -- behind the arrival
    hash(l.file_id) AS id_hash, -- a million texts take long to look through
    coalesce(
        l.loaded_at, CASE WHEN l.next_try_at IS NOT NULL THEN least(l.next_try_at, $as_of) END, l.last_modified
    ) AS dealt_at,
    coalesce(r.of_file_no, l.file_no) AS of_file_no, -- of a redrive that of the file whose lines it fixes
    coalesce(f.open_failures, 0) AS open_failures,
    CASE WHEN l.state IN ('loaded', 'rejected') THEN coalesce(f.open_failures, 0) ELSE 0 END AS to_fix,
    coalesce(f.without_text, 0) AS without_text, -- failed lines that are told here without their texts
    coalesce(f.open_without_text, 0) AS open_without_text
FROM warehouse.ledger AS l
LEFT JOIN (
    SELECT redriven.file_no, original.file_no AS of_file_no
    FROM warehouse.ledger AS redriven
    JOIN warehouse.ledger AS original ON original.file_id = redriven.redrive_of
    WHERE redriven.redrive_of IS NOT NULL
) AS r ON r.file_no = l.file_no
LEFT JOIN (
    SELECT
        file_no, count(*) FILTER (redriven_by IS NULL) AS open_failures,
        count(*) FILTER (text_bytes IS NULL) AS without_text,
        count(*) FILTER (text_bytes IS NULL AND redriven_by IS NULL) AS open_without_text
    FROM published.failed_lines
    GROUP BY file_no
) AS f ON f.file_no = l.file_no

-- name: publish_history
-- what was done to files.
CREATE TABLE published.history AS SELECT *, hash(file_id) AS id_hash FROM warehouse.history

-- name: publish_key_order
-- the rows of the published ledger in natural order of their keys, since texts take long to sort.
CREATE TABLE published.key_order AS SELECT rowid AS row FROM published.ledger ORDER BY natural_key, file_no

-- name: publish_lengths
-- how long the texts of some failed lines are. The caller adds WHERE with the rows as plain numbers.
INSERT INTO lengths
SELECT
    f.rowid AS row,
    octet_length(raw) + strlen(failures::VARCHAR) + coalesce(octet_length(context), 0) AS bytes
FROM warehouse.failed_line_rows AS f

-- name: publish_candidates
-- the first failed lines of each file whose texts may be copied, as far as their lengths tell. Those
-- that are mended come last: who mends what is shown is shown the next.
-- in: $most (bytes of one file).
CREATE TEMP TABLE candidates AS
WITH line AS (
    SELECT
        rowid AS row, file_no, redriven_by IS NOT NULL AS is_mended, line, item,
        500 + CASE WHEN mendable THEN byte_length ELSE least(byte_length, 65536) END AS bytes -- not kept whole: its beginning
    FROM warehouse.failed_line_rows
),
large AS (SELECT file_no FROM line GROUP BY file_no HAVING sum(bytes) > $most)
SELECT row, file_no, is_mended, line, item, bytes FROM line ANTI JOIN large USING (file_no)
UNION ALL
SELECT row, file_no, is_mended, line, item, bytes
FROM line SEMI JOIN large USING (file_no)
QUALIFY sum(bytes) OVER (PARTITION BY file_no ORDER BY is_mended, line, item ROWS UNBOUNDED PRECEDING) <= $most

-- name: publish_chosen
-- the first failed lines of each file, as many as are copied with their texts.
-- in: $most (bytes of one file).
CREATE TEMP TABLE chosen AS
WITH large AS (SELECT file_no FROM candidates JOIN lengths USING (row) GROUP BY file_no HAVING sum(lengths.bytes) > $most)
SELECT row, lengths.bytes FROM candidates JOIN lengths USING (row) ANTI JOIN large USING (file_no)
UNION ALL
SELECT row, lengths.bytes
FROM candidates JOIN lengths USING (row) SEMI JOIN large USING (file_no)
QUALIFY sum(lengths.bytes) OVER (PARTITION BY file_no ORDER BY is_mended, line, item ROWS UNBOUNDED PRECEDING) <= $most

-- name: publish_parts
-- runs of failed lines that are all among those of a table, or all not, each of some MB.
-- The caller puts the table (row, bytes) in place of {among}.
-- in: $at_once (bytes).   out: first, last (rows), is_among.
WITH line AS (
    SELECT l.rowid AS row, a.row IS NOT NULL AS is_among, coalesce(a.bytes, 0) AS bytes
    FROM warehouse.failed_line_rows AS l
    LEFT JOIN {among} AS a ON a.row = l.rowid
),
turned AS (
    SELECT *, coalesce(is_among <> lag(is_among) OVER (ORDER BY row), FALSE)::INTEGER AS turn FROM line
),
part AS (
    SELECT
        row, is_among, sum(turn) OVER so_far AS run, sum(bytes) OVER so_far // $at_once AS part
    FROM turned
    WINDOW so_far AS (ORDER BY row ROWS UNBOUNDED PRECEDING)
)
SELECT min(row) AS first, max(row) AS last, is_among
FROM part
GROUP BY run, part, is_among
ORDER BY first

-- name: publish_failed_table
-- where failed lines go, as pages read them. `text_bytes` NULL: they are told without texts.
CREATE TABLE published.failed_lines (
    file_no     BIGINT, file_id VARCHAR, line BIGINT, item VARCHAR, byte_offset BIGINT, byte_length BIGINT,
    raw         BLOB, raw_sha256 VARCHAR, mendable BOOLEAN, codes VARCHAR[], failures JSON, redriven_at TIMESTAMPTZ,
    redriven_by VARCHAR, context BLOB,
    rules       STRUCT(code VARCHAR, pointer VARCHAR, message VARCHAR)[], text_bytes BIGINT
)

-- name: publish_failed_lines
-- some failed lines. The caller adds WHERE with the rows as plain numbers, and puts TRUE in place
-- of {texts} where their texts are copied: `raw`, `failures` (with what it says of rules as a column: a page groups a
-- file's lines by them) and `context`. Else they are NULL.
INSERT INTO published.failed_lines
SELECT
    f.file_no, l.file_id, f.line, f.item, f.byte_offset, f.byte_length, CASE WHEN {texts} THEN f.raw END AS raw,
    CASE WHEN {texts} THEN f.raw_sha256 END AS raw_sha256, f.mendable, f.codes,
    CASE WHEN {texts} THEN f.failures END AS failures, f.redriven_at, f.redriven_by,
    CASE WHEN {texts} THEN f.context END AS context,
    CASE WHEN {texts} THEN from_json(f.failures, '[{"code": "VARCHAR", "pointer": "VARCHAR", "message": "VARCHAR"}]') END
        AS rules,
    CASE WHEN {texts} THEN octet_length(f.raw) + strlen(f.failures::VARCHAR) + coalesce(octet_length(f.context), 0) END
        AS text_bytes
FROM warehouse.failed_line_rows AS f
JOIN warehouse.ledger AS l ON l.file_no = f.file_no

-- name: publish_failure_codes
-- how many lines of a file break which rule, wherever.
CREATE TABLE published.failure_codes AS
SELECT
    file_no, file_id, code, count(*) AS lines, count(*) FILTER (is_open) AS open, min(line) AS first_line
FROM (SELECT file_no, file_id, line, redriven_by IS NULL AS is_open, unnest(codes) AS code FROM published.failed_lines)
GROUP BY ALL
ORDER BY file_no, code

-- name: publish_failure_places
-- which rules the lines of a file break at which place, each line once, since counting takes
-- longer than a page may.
CREATE TABLE published.failure_places AS
WITH broken AS (
    SELECT rowid AS row, file_no, file_id, line, redriven_by IS NULL AS is_open, unnest(rules) AS rule
    FROM published.failed_lines
)
SELECT
    file_no, file_id, rule.code AS code, coalesce(rule.pointer, '') AS pointer,
    arg_min(rule.message, (line, row)) AS message,
    count(DISTINCT row) AS lines, count(DISTINCT row) FILTER (is_open) AS open, min(line) AS first_line
FROM broken
GROUP BY ALL
ORDER BY file_no, code, lines DESC, pointer

-- name: publish_glances
-- of each source what is left to fix, and when its files came.
-- A redrive never was an object. A file of a disk that was moved there keeps its old time.
CREATE TABLE published.glances AS
WITH came AS (
    SELECT
        source, to_fix,
        CASE
            WHEN redrive_of IS NOT NULL THEN NULL
            WHEN bucket = 'file' THEN greatest(last_modified, loaded_at)
            ELSE last_modified
        END AS came_at
    FROM published.ledger
)
SELECT
    source, sum(to_fix)::BIGINT AS open, count(*) FILTER (to_fix > 0) AS files, max(came_at) AS last_file_at,
    max(DISTINCT epoch_us(came_at) // 3600000000, 336) AS hours -- since 1970, the newest first: those of two weeks, or more
FROM came
GROUP BY source

-- name: publish_states
-- how many files of each source are in each state; a redrive counts as its file.
CREATE TABLE published.states AS
SELECT source, state, count(DISTINCT of_file_no) AS files
FROM published.ledger
GROUP BY source, state
