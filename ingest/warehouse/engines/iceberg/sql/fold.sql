-- fold.sql: the mirror takes up what others have committed.

-- name: fold
-- in: incoming (rows of the lake that are new to the mirror, commands apart).
INSERT OR REPLACE INTO ledger BY NAME
SELECT {ledger} FROM incoming WHERE change = 'ledger' QUALIFY row_number() OVER (PARTITION BY file_id ORDER BY seq DESC) = 1;

INSERT OR REPLACE INTO stages
SELECT file_no, stage_no FROM incoming WHERE change = 'stage' QUALIFY row_number() OVER (PARTITION BY file_no ORDER BY seq DESC) = 1;

INSERT INTO failed_line_rows BY NAME
SELECT file_no, line, item, byte_offset, byte_length, raw, raw_sha256, mendable, codes, failures::JSON AS failures, context
FROM incoming WHERE change = 'failed';

UPDATE failed_line_rows SET redriven_at = m.redriven_at, redriven_by = m.redriven_by
FROM (
    SELECT file_no, line, item, redriven_at, redriven_by FROM incoming WHERE change = 'mended'
    QUALIFY row_number() OVER (PARTITION BY file_no, line, item ORDER BY seq DESC) = 1
) AS m
WHERE failed_line_rows.file_no = m.file_no AND failed_line_rows.line = m.line AND failed_line_rows.item = m.item;

CREATE OR REPLACE TEMP TABLE shadowed AS
SELECT file_no, line, item_no, command_id::UUID AS command_id, is_first FROM incoming WHERE change = 'shadow'
QUALIFY row_number() OVER (PARTITION BY file_no, line, item_no, command_id ORDER BY seq DESC) = 1;
DELETE FROM shadow_rows USING shadowed AS s
WHERE shadow_rows.file_no = s.file_no AND shadow_rows.line = s.line AND shadow_rows.item_no = s.item_no
  AND shadow_rows.command_id = s.command_id;
INSERT INTO shadow_rows SELECT file_no, line, item_no, command_id FROM shadowed WHERE NOT is_first;

CREATE OR REPLACE TEMP TABLE gone AS SELECT file_no FROM incoming WHERE change = 'gone';
DELETE FROM stages WHERE file_no IN (SELECT file_no FROM gone);
DELETE FROM failed_line_rows WHERE file_no IN (SELECT file_no FROM gone);
DELETE FROM shadow_rows WHERE file_no IN (SELECT file_no FROM gone);

CREATE OR REPLACE TEMP TABLE linked AS
SELECT people_space, identity_key, person_id FROM incoming WHERE change = 'link'
QUALIFY row_number() OVER (PARTITION BY people_space, identity_key ORDER BY seq DESC) = 1;
DELETE FROM person_links USING linked AS k
WHERE person_links.people_space = k.people_space AND person_links.identity_key = k.identity_key;
INSERT INTO person_links SELECT people_space, identity_key, person_id FROM linked WHERE person_id IS NOT NULL;

SET preserve_insertion_order = true;  -- what was done at one moment keeps its order
INSERT INTO history (file_id, action, "at", "by", reason, run_id)
SELECT file_id, action, "at", "by", reason, run_id FROM incoming WHERE change = 'history' ORDER BY seq;
SET preserve_insertion_order = false;

INSERT OR IGNORE INTO polled_sources SELECT source, first_polled_at FROM incoming WHERE change = 'polled';

INSERT OR REPLACE INTO people_spaces
SELECT people_space, match FROM incoming WHERE change = 'space'
QUALIFY row_number() OVER (PARTITION BY people_space ORDER BY seq DESC) = 1;

INSERT OR REPLACE INTO settled
SELECT name, value FROM incoming WHERE change = 'settled' QUALIFY row_number() OVER (PARTITION BY name ORDER BY seq DESC) = 1

-- name: last_folded
-- in: incoming.   out: number of the last commit, highest number of a file; NULL: of none.
SELECT max(seq) >> 32, max(file_no) FROM incoming
