-- enter_file.sql: the ledger row of a file that was dealt with, whatever came of it.
INSERT INTO ledger (
    file_id, file_no, source, bucket, key, etag, version_id, last_modified, sha256, size_bytes, format, people_space, state, lines,
    blank, items, records, sets, aliases, failed, repaired, duplicates, warnings, load_id, run_id, loaded_at, attempts,
    next_try_at, duplicate_of, error, position
)
SELECT
    file_id, file_no, source, bucket, key, etag, version_id, last_modified, sha256, size_bytes, format, people_space, state, lines,
    blank, items, records, sets, aliases, failed, repaired, duplicates, warnings, load_id, run_id, loaded_at, attempts,
    next_try_at, duplicate_of, error, position
FROM entries
ON CONFLICT (file_id) DO UPDATE SET
    file_no = excluded.file_no, source = excluded.source, last_modified = excluded.last_modified,
    sha256 = excluded.sha256, size_bytes = excluded.size_bytes, format = excluded.format,
    people_space = excluded.people_space, state = excluded.state,
    lines = excluded.lines, blank = excluded.blank, items = excluded.items, records = excluded.records,
    sets = excluded.sets, aliases = excluded.aliases, failed = excluded.failed, repaired = excluded.repaired,
    duplicates = excluded.duplicates, warnings = excluded.warnings, load_id = excluded.load_id,
    run_id = excluded.run_id, loaded_at = excluded.loaded_at, attempts = excluded.attempts,
    next_try_at = excluded.next_try_at, duplicate_of = excluded.duplicate_of, error = excluded.error,
    position = excluded.position
