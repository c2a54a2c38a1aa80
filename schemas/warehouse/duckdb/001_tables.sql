-- The tables. What all rows of a file share stands in `ledger` once; its rows carry `file_no`, which only grows.

CREATE SEQUENCE file_numbers;

-- A byte instead of a text in every row.
CREATE TYPE command_kind AS ENUM ('record', 'set', 'alias');
CREATE TYPE time_source AS ENUM ('event', 'received');

CREATE TABLE ledger (
    file_id       VARCHAR PRIMARY KEY,
    file_no       BIGINT NOT NULL,      -- the number of its rows; a file that is put anew gets a new one
    source        VARCHAR NOT NULL,
    bucket        VARCHAR NOT NULL,
    key           VARCHAR NOT NULL,
    etag          VARCHAR NOT NULL,
    version_id    VARCHAR,
    last_modified TIMESTAMPTZ NOT NULL,
    sha256        VARCHAR,              -- of the stored bytes
    size_bytes    BIGINT NOT NULL,
    format        VARCHAR NOT NULL,
    people_space  VARCHAR NOT NULL,
    state         VARCHAR NOT NULL,
    lines         BIGINT NOT NULL DEFAULT 0,
    blank         BIGINT NOT NULL DEFAULT 0,
    items         BIGINT NOT NULL DEFAULT 0,
    records       BIGINT NOT NULL DEFAULT 0,
    sets          BIGINT NOT NULL DEFAULT 0,
    aliases       BIGINT NOT NULL DEFAULT 0,
    failed        BIGINT NOT NULL DEFAULT 0,
    repaired      BIGINT NOT NULL DEFAULT 0,
    duplicates    BIGINT NOT NULL DEFAULT 0,
    warnings      JSON,                 -- {code: count}
    load_id       VARCHAR,
    run_id        VARCHAR,
    loaded_at     TIMESTAMPTZ,
    attempts      INTEGER NOT NULL DEFAULT 0,
    next_try_at   TIMESTAMPTZ,
    duplicate_of  VARCHAR,
    replaced_by   VARCHAR,
    redrive_of    VARCHAR,
    archived_to   VARCHAR,
    deleted_at    TIMESTAMPTZ,          -- when the object was taken out of the landing
    error         VARCHAR,
    position      VARCHAR NOT NULL      -- what the positions of its rows begin with
);

-- What most rows would repeat is NULL: see the view `full_rows`. Half the time of an insert went into the search for the
-- compression, which comes to these anyway.
CREATE TABLE command_rows (
    file_no      BIGINT NOT NULL,
    line         BIGINT NOT NULL,
    item_no      INTEGER NOT NULL,      -- where the item stands in its line
    item         VARCHAR,               -- NULL: the whole line
    kind         command_kind NOT NULL,
    people_space VARCHAR,               -- NULL: the file's
    person       VARCHAR NOT NULL USING COMPRESSION dictionary,
    person_key   VARCHAR USING COMPRESSION dictionary,  -- NULL: as `person`
    occurred_at  TIMESTAMPTZ NOT NULL,
    event        VARCHAR USING COMPRESSION dictionary,
    event_key    VARCHAR USING COMPRESSION dictionary,  -- NULL: as `event`
    alias        VARCHAR USING COMPRESSION dictionary,
    alias_key    VARCHAR USING COMPRESSION dictionary,  -- NULL: as `alias`
    properties   JSON NOT NULL USING COMPRESSION fsst,
    time_source  time_source NOT NULL,
    command_id   UUID NOT NULL USING COMPRESSION uncompressed,
    is_first     BOOLEAN NOT NULL       -- of all rows with its command_id, the one with the smallest position
);

CREATE TABLE failed_line_rows (
    file_no     BIGINT NOT NULL,
    line        BIGINT NOT NULL,
    item        VARCHAR NOT NULL,
    byte_offset BIGINT NOT NULL,
    byte_length BIGINT NOT NULL,
    raw         BLOB NOT NULL,
    raw_sha256  VARCHAR NOT NULL,
    mendable    BOOLEAN NOT NULL,
    codes       VARCHAR[] NOT NULL,
    failures    JSON NOT NULL,
    redriven_at TIMESTAMPTZ,
    redriven_by VARCHAR
);

CREATE TABLE history (
    file_id VARCHAR NOT NULL,
    action  VARCHAR NOT NULL,
    "at"    TIMESTAMPTZ NOT NULL,
    "by"    VARCHAR,
    reason  VARCHAR,
    run_id  VARCHAR
);

-- Sources whose landing was looked at: what was there before is told apart from what came since.
CREATE TABLE polled_sources (
    source          VARCHAR PRIMARY KEY,
    first_polled_at TIMESTAMPTZ NOT NULL
);

-- Every key that an alias joins to another, and the smallest key of its component. Keys without a row stand alone.
CREATE TABLE person_links (
    people_space VARCHAR NOT NULL,
    identity_key VARCHAR NOT NULL,
    person_id    VARCHAR NOT NULL
);

-- How the names of a space match, so that the views can fold property names.
CREATE TABLE people_spaces (
    people_space VARCHAR PRIMARY KEY,
    match        VARCHAR NOT NULL
);
