-- The one table of a lake: nothing in it is ever changed, and of rows of one thing the latest counts (`seq`).
-- Here is what one commit adds to it, commands apart: they are in files of their own, `part` = 'commands'.
CREATE OR REPLACE TEMP TABLE changes (
    part            VARCHAR DEFAULT 'changes',
    change          VARCHAR,         -- ledger, stage, failed, mended, shadow, gone, link, history, polled, space, settled
    seq             BIGINT,          -- number of the commit, and within it

    -- commands: every accepted command of a file, under the number of its stage
    stage_no        BIGINT,
    line            BIGINT,
    item_no         INTEGER,
    item            VARCHAR,
    kind            VARCHAR,
    people_space    VARCHAR,
    person          VARCHAR,
    person_key      VARCHAR,
    occurred_at     TIMESTAMPTZ,
    event           VARCHAR,
    event_key       VARCHAR,
    alias           VARCHAR,
    alias_key       VARCHAR,
    properties      VARCHAR,
    time_source     VARCHAR,
    command_id      UUID,
    identity        VARCHAR,

    -- ledger: a file as it is from now on. stage: under which number its commands stand. gone: its rows are no more.
    file_id         VARCHAR,
    file_no         BIGINT,
    source          VARCHAR,
    bucket          VARCHAR,
    key             VARCHAR,
    etag            VARCHAR,
    version_id      VARCHAR,
    last_modified   TIMESTAMPTZ,
    sha256          VARCHAR,
    size_bytes      BIGINT,
    format          VARCHAR,
    state           VARCHAR,
    lines           BIGINT,
    blank           BIGINT,
    items           BIGINT,
    records         BIGINT,
    sets            BIGINT,
    aliases         BIGINT,
    failed          BIGINT,
    repaired        BIGINT,
    duplicates      BIGINT,
    warnings        VARCHAR,
    load_id         VARCHAR,
    run_id          VARCHAR,
    loaded_at       TIMESTAMPTZ,
    attempts        INTEGER,
    next_try_at     TIMESTAMPTZ,
    duplicate_of    VARCHAR,
    replaced_by     VARCHAR,
    redrive_of      VARCHAR,
    archived_to     VARCHAR,
    deleted_at      TIMESTAMPTZ,
    error           VARCHAR,
    position        VARCHAR,
    match           VARCHAR,
    read_bytes      BIGINT,

    -- failed: a failed line. mended: by which redrive it is; NULL: open again.
    byte_offset     BIGINT,
    byte_length     BIGINT,
    raw             BLOB,
    raw_sha256      VARCHAR,
    mendable        BOOLEAN,
    codes           VARCHAR[],
    failures        VARCHAR,
    context         BLOB,
    redriven_at     TIMESTAMPTZ,
    redriven_by     VARCHAR,

    -- shadow: whether a command is the first of its fact. Of those that are not named, each is.
    is_first        BOOLEAN,

    -- link: whom an identity belongs to; NULL: to itself
    identity_key    VARCHAR,
    person_id       VARCHAR,

    -- history; polled: when a source was first; space: people_space and match; settled: name and value
    action          VARCHAR,
    "at"            TIMESTAMPTZ,
    "by"            VARCHAR,
    reason          VARCHAR,
    first_polled_at TIMESTAMPTZ,
    name            VARCHAR,
    value           VARCHAR
);
