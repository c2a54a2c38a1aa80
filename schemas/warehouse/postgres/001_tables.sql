-- The tables, as on DuckDB. Texts compare byte by byte: so they do in Python and on every other engine.

CREATE SEQUENCE file_numbers;

CREATE TYPE command_kind AS ENUM ('record', 'set', 'alias');

CREATE TYPE time_source AS ENUM ('event', 'received');

CREATE TABLE ledger (
    file_id       text COLLATE "C" PRIMARY KEY,
    file_no       bigint NOT NULL UNIQUE,     -- the number of its rows; a file that is put anew gets a new one
    source        text COLLATE "C" NOT NULL,
    bucket        text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    etag          text COLLATE "C" NOT NULL,
    version_id    text COLLATE "C",
    last_modified timestamptz NOT NULL,
    sha256        text COLLATE "C",           -- of the stored bytes
    size_bytes    bigint NOT NULL,
    format        text COLLATE "C" NOT NULL,
    people_space  text COLLATE "C" NOT NULL,
    state         text COLLATE "C" NOT NULL,
    lines         bigint NOT NULL DEFAULT 0,
    blank         bigint NOT NULL DEFAULT 0,
    items         bigint NOT NULL DEFAULT 0,
    records       bigint NOT NULL DEFAULT 0,
    sets          bigint NOT NULL DEFAULT 0,
    aliases       bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    repaired      bigint NOT NULL DEFAULT 0,
    duplicates    bigint NOT NULL DEFAULT 0,
    warnings      json,                       -- {code: count}
    load_id       text COLLATE "C",
    run_id        text COLLATE "C",
    loaded_at     timestamptz,
    attempts      bigint NOT NULL DEFAULT 0,
    next_try_at   timestamptz,
    duplicate_of  text COLLATE "C",
    replaced_by   text COLLATE "C",
    redrive_of    text COLLATE "C",
    archived_to   text COLLATE "C",
    deleted_at    timestamptz,                -- when the object was taken out of the landing
    error         text COLLATE "C",
    position      text COLLATE "C" NOT NULL,  -- what the positions of its rows begin with
    match         text COLLATE "C",           -- how its names match
    read_bytes    bigint                      -- of the object, as the store gave it
);

-- A hash takes keys of any length.
CREATE INDEX ledger_key ON ledger USING hash (key);

CREATE INDEX ledger_sha256 ON ledger (sha256) WHERE state = 'loaded';

CREATE INDEX ledger_source ON ledger (source, state);

-- What pages sort by: when files were dealt with, and their keys in natural order (an index takes no longer ones).
CREATE INDEX ledger_dealt ON ledger ((coalesce(loaded_at, next_try_at, last_modified)) DESC NULLS LAST, file_no DESC);

CREATE INDEX ledger_natural ON ledger (left(substr(position, 19), 600));

-- When the files of a source came: a redrive never was an object, and a file of a disk that was moved keeps its old time.
CREATE INDEX ledger_came ON ledger (
    source, (CASE WHEN bucket = 'file' THEN greatest(last_modified, loaded_at) ELSE last_modified END)
) WHERE redrive_of IS NULL;

CREATE INDEX ledger_failed ON ledger (file_no) INCLUDE (source, state) WHERE failed > 0;

CREATE INDEX ledger_run ON ledger (run_id);

CREATE INDEX ledger_redrives ON ledger (redrive_of) WHERE redrive_of IS NOT NULL;

CREATE INDEX ledger_duplicates ON ledger (duplicate_of) WHERE duplicate_of IS NOT NULL;

CREATE INDEX ledger_replaced ON ledger (replaced_by) WHERE replaced_by IS NOT NULL;

-- What most rows would repeat is NULL: see the view `full_rows`. Columns of fixed width come first, since that saves
-- room. `json` keeps every digit as it was sent; `jsonb` respells them.
CREATE TABLE command_rows (
    occurred_at  timestamptz NOT NULL,
    command_id   uuid NOT NULL,
    file_no      bigint NOT NULL,
    line         bigint NOT NULL,
    item_no      integer NOT NULL,            -- where the item stands in its line
    is_first     boolean NOT NULL,            -- of all rows with its command_id, the one with the smallest position
    kind         command_kind NOT NULL,
    time_source  time_source NOT NULL,
    item         text COLLATE "C",            -- NULL: the whole line
    people_space text COLLATE "C",            -- NULL: the file's
    person       text COLLATE "C" NOT NULL,
    person_key   text COLLATE "C",            -- NULL: as `person`
    event        text COLLATE "C",
    event_key    text COLLATE "C",            -- NULL: as `event`
    alias        text COLLATE "C",
    alias_key    text COLLATE "C",            -- NULL: as `alias`
    properties   json NOT NULL,
    identity     text COLLATE "C"             -- JSON array, see Command.identity; NULL: what the row says
);

CREATE INDEX command_rows_file ON command_rows (file_no);

-- Rows of one fact have one time, so this finds them, and its pages are written in the order in which events come.
CREATE INDEX command_rows_fact ON command_rows (occurred_at, command_id);

-- But for those whose identity is not what they say.
CREATE INDEX command_rows_timeless ON command_rows (command_id) WHERE identity >= '["only"' AND identity < '["only#';

CREATE INDEX command_rows_aliases ON command_rows USING hash ((coalesce(person_key, person))) WHERE kind = 'alias';

CREATE TABLE failed_line_rows (
    file_no     bigint NOT NULL,
    line        bigint NOT NULL,
    byte_offset bigint NOT NULL,
    byte_length bigint NOT NULL,
    redriven_at timestamptz,
    mendable    boolean NOT NULL,
    item        text COLLATE "C" NOT NULL,
    raw_sha256  text COLLATE "C" NOT NULL,
    codes       text[] NOT NULL,
    redriven_by text COLLATE "C",
    failures    json NOT NULL,
    raw         bytea NOT NULL,
    context     bytea                         -- what of its document a fixed item is judged with
);

CREATE INDEX failed_line_rows_line ON failed_line_rows (file_no, line);

CREATE INDEX failed_line_rows_open ON failed_line_rows (file_no) WHERE redriven_by IS NULL;

CREATE INDEX failed_line_rows_redrives ON failed_line_rows (redriven_by) WHERE redriven_by IS NOT NULL;

CREATE TABLE history (
    file_id text COLLATE "C" NOT NULL,
    action  text COLLATE "C" NOT NULL,
    "at"    timestamptz NOT NULL,
    "by"    text COLLATE "C",
    reason  text COLLATE "C",
    run_id  text COLLATE "C"
);

CREATE INDEX history_file ON history (file_id);

CREATE INDEX history_run ON history (run_id) WHERE run_id IS NOT NULL;

-- Sources whose landing was looked at: what was there before is told apart from what came since.
CREATE TABLE polled_sources (
    source          text COLLATE "C" PRIMARY KEY,
    first_polled_at timestamptz NOT NULL
);

-- Every key that an alias joins to another, and the smallest key of its component. Keys without a row stand alone.
CREATE TABLE person_links (
    people_space text COLLATE "C" NOT NULL,
    identity_key text COLLATE "C" NOT NULL,
    person_id    text COLLATE "C" NOT NULL
);

CREATE INDEX person_links_key ON person_links USING hash (identity_key);

CREATE INDEX person_links_person ON person_links USING hash (person_id);

-- How the names of a space match, so that the views can fold property names.
CREATE TABLE people_spaces (
    people_space text COLLATE "C" PRIMARY KEY,
    match        text COLLATE "C" NOT NULL
);

-- What was settled for all loaders: their own settings may not say otherwise.
CREATE TABLE settled (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- One row, which every transaction that changes anything counts up.
CREATE TABLE warehouse_version (version bigint NOT NULL);

INSERT INTO warehouse_version VALUES (0);
