-- published_failure_groups.sql: failed lines of some files by the rules they break, and the places where most break one.
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
