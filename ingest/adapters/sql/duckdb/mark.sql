-- mark.sql: write down where objects went; what the ledger knows already stays.
-- in: marks (Arrow: file_id, archived_to, deleted_at, reason).
UPDATE ledger
SET archived_to = coalesce(ledger.archived_to, m.archived_to), deleted_at = coalesce(ledger.deleted_at, m.deleted_at)
FROM marks AS m
WHERE ledger.file_id = m.file_id
