-- remember_marks.sql: tell history of what marks say and the ledger does not know yet, so that it is told once.
-- in: marks (Arrow: file_id, archived_to, deleted_at, reason), $now, $by, $reason (where a mark has none), $run_id.
INSERT INTO history
SELECT m.file_id, a.action, $now, $by, coalesce(m.reason, $reason), $run_id
FROM marks AS m
JOIN ledger AS l USING (file_id)
CROSS JOIN (VALUES ('archived'), ('deleted')) AS a (action)
WHERE CASE a.action
    WHEN 'archived' THEN m.archived_to IS NOT NULL AND l.archived_to IS NULL
    ELSE m.deleted_at IS NOT NULL AND l.deleted_at IS NULL
END
