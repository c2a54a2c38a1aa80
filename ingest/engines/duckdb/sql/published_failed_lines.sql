-- published_failed_lines.sql: where some failed lines are: what is long is not touched.
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
