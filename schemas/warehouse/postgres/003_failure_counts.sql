-- Failed lines of each file by the rules they break, kept by the statements that change them: pages cannot count a million.
-- Who adds lines adds rows, and so waits for nobody; who changes or removes some (with the warehouse alone) makes one row
-- of a file's again.
CREATE TABLE failure_counts (
    file_no    bigint NOT NULL,
    code       text COLLATE "C" NOT NULL,     -- '': each line once, whatever it breaks
    lines      bigint NOT NULL,
    open       bigint NOT NULL,
    first_line bigint
);

CREATE INDEX failure_counts_file ON failure_counts (file_no);

CREATE INDEX failure_counts_open ON failure_counts (code, file_no) INCLUDE (open) WHERE open > 0;

CREATE FUNCTION count_failures() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO failure_counts
        SELECT file_no, code, -count(*), -count(*) FILTER (WHERE redriven_by IS NULL), NULL
        FROM went CROSS JOIN LATERAL unnest(''::text || codes) AS c (code)
        GROUP BY file_no, code;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO failure_counts
        SELECT file_no, code, count(*), count(*) FILTER (WHERE redriven_by IS NULL), min(line)
        FROM came CROSS JOIN LATERAL unnest(''::text || codes) AS c (code)
        GROUP BY file_no, code;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        WITH apart AS (
            DELETE FROM failure_counts
            WHERE file_no IN (SELECT file_no FROM went)
            RETURNING file_no, code, lines, open, first_line
        )
        INSERT INTO failure_counts
        SELECT file_no, code, sum(lines), sum(open), min(first_line)
        FROM apart
        GROUP BY file_no, code
        HAVING sum(lines) > 0;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER failures_came AFTER INSERT ON failed_line_rows
REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION count_failures();

CREATE TRIGGER failures_changed AFTER UPDATE ON failed_line_rows
REFERENCING OLD TABLE AS went NEW TABLE AS came FOR EACH  STATEMENT EXECUTE FUNCTION count_failures();

CREATE TRIGGER failures_went AFTER DELETE ON failed_line_rows
REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION count_failures();

INSERT INTO failure_counts
SELECT file_no, code, count(*), count(*) FILTER (WHERE redriven_by IS NULL), min(line)
FROM failed_line_rows CROSS JOIN LATERAL unnest(''::text || codes) AS c (code)
GROUP BY file_no, code;

-- What pages say of files with failed lines, without reading their rows.
DROP INDEX ledger_failed;

CREATE INDEX ledger_failed ON ledger (file_no)
INCLUDE (source, state, format, loaded_at, next_try_at, last_modified, lines, blank, failed) WHERE failed > 0;
