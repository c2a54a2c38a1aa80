-- What the mirror of a lake has beside the tables of a DuckDB warehouse. A mirror proves nothing and may be deleted at any
-- time.

-- Commands are in the lake alone: a view takes its place.
DROP TABLE command_rows;

-- Under which number the commands of a file stand in the lake. Those of a number that is not here are nobody's.
CREATE TABLE stages (
    file_no  BIGINT PRIMARY KEY,
    stage_no BIGINT NOT NULL
);

-- Commands that are not the first of their fact.
CREATE TABLE shadow_rows (
    file_no    BIGINT NOT NULL,
    line       BIGINT NOT NULL,
    item_no    INTEGER NOT NULL,
    command_id UUID NOT NULL
);

-- What all loaders have to agree on.
CREATE TABLE settled (
    name  VARCHAR PRIMARY KEY,
    value VARCHAR NOT NULL
);

-- Which files of the lake hold commands, and what their rows lie between.
CREATE TABLE lake_files (
    path        VARCHAR PRIMARY KEY,
    first_at    TIMESTAMPTZ,
    last_at     TIMESTAMPTZ,
    first_stage BIGINT,
    last_stage  BIGINT
);

-- Which snapshot of which table this is the mirror of, the number of its last commit, and the highest number of a file.
CREATE TABLE mirrored (
    table_id    VARCHAR NOT NULL,
    snapshot_id BIGINT,
    commit_no   BIGINT NOT NULL,
    file_no     BIGINT NOT NULL
);
