-- publish_failed_table.sql: where failed lines go, as pages read them. `text_bytes` NULL: they are told without texts.
CREATE TABLE published.failed_lines (
    file_no     BIGINT, file_id VARCHAR, line BIGINT, item VARCHAR, byte_offset BIGINT, byte_length BIGINT,
    raw         BLOB, raw_sha256 VARCHAR, mendable BOOLEAN, codes VARCHAR[], failures JSON, redriven_at TIMESTAMPTZ,
    redriven_by VARCHAR, context BLOB,
    rules       STRUCT(code VARCHAR, pointer VARCHAR, message VARCHAR)[], text_bytes BIGINT
)
