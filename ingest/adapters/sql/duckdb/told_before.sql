-- told_before.sql: of which files somebody was told already.
-- in: $file_ids, $reason (who was told).   out: file_id.
SELECT file_id
FROM history
WHERE list_contains($file_ids, file_id) AND reason = $reason AND action IN ('notified', 'not_notified')
GROUP BY file_id
HAVING arg_max(action, "at") = 'notified'
