-- published_lines.sql: failed lines, whole, in order of their rows. The caller adds WHERE with the rows as plain numbers:
-- then, and not with bound ones or where the numbers are told too, the engine decompresses long lines of these rows only.
SELECT * EXCLUDE (file_no, rules, text_bytes)
FROM published.failed_lines
