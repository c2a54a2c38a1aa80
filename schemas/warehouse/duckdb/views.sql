-- The views that people query. Made anew whenever this text changes.

-- Each stored row in full.
CREATE OR REPLACE VIEW full_rows AS
SELECT
    l.file_id, c.file_no, l.source, c.line, coalesce(c.item, '') AS item, c.kind,
    coalesce(c.people_space, l.people_space) AS people_space, c.person, coalesce(c.person_key, c.person) AS person_key,
    c.occurred_at, c.event, coalesce(c.event_key, c.event) AS event_key, c.alias,
    coalesce(c.alias_key, c.alias) AS alias_key, c.properties, c.time_source,
    l.position || lpad(c.line::VARCHAR, 12, '0') || lpad(c.item_no::VARCHAR, 9, '0') AS position,
    c.command_id, l.load_id, c.is_first
FROM command_rows AS c
JOIN ledger AS l USING (file_no);

CREATE OR REPLACE VIEW commands AS
SELECT
    file_id, line, item, kind, people_space, person, person_key, occurred_at, event, event_key, alias, alias_key,
    properties, time_source, position, command_id, load_id
FROM full_rows;

CREATE OR REPLACE VIEW failed_lines AS
SELECT
    l.file_id, f.line, f.item, f.byte_offset, f.byte_length, f.raw, f.raw_sha256, f.mendable, f.codes, f.failures,
    f.redriven_at, f.redriven_by
FROM failed_line_rows AS f
JOIN ledger AS l USING (file_no);

-- Each fact once, with the person it belongs to.
CREATE OR REPLACE VIEW facts AS
SELECT
    r.command_id, r.kind, r.people_space, coalesce(p.person_id, r.person_key) AS person_id, r.person, r.person_key,
    r.event, r.event_key, r.occurred_at, r.position, r.properties, r.time_source, r.source, r.file_id, r.line, r.item
FROM full_rows AS r
LEFT JOIN person_links AS p ON p.people_space = r.people_space AND p.identity_key = r.person_key
WHERE r.is_first;

CREATE OR REPLACE VIEW events AS
SELECT
    command_id, people_space, person_id, person, event, event_key, occurred_at, position, properties, time_source,
    source, file_id, line, item
FROM facts
WHERE kind = 'record';

-- Every identity that a person or an alias was ever called by, in files that were not undone.
CREATE OR REPLACE VIEW identities AS
SELECT
    k.people_space, min(k.identity) AS identity, k.identity_key,
    coalesce(any_value(p.person_id), k.identity_key) AS person_id
FROM (
    SELECT people_space, person AS identity, person_key AS identity_key FROM full_rows
    UNION ALL
    SELECT people_space, alias, alias_key FROM full_rows WHERE kind = 'alias'
) AS k
LEFT JOIN person_links AS p USING (people_space, identity_key)
GROUP BY k.people_space, k.identity_key;

CREATE OR REPLACE VIEW profiles AS
WITH seen AS (
    SELECT f.people_space, f.person_id, min(f.occurred_at) AS first_seen, max(f.occurred_at) AS last_seen
    FROM facts AS f
    GROUP BY ALL
),
repeated AS (
    -- A fact that was told again holds as of the last time, which decides between facts of one moment.
    SELECT command_id, max(position) AS position
    FROM full_rows
    WHERE NOT is_first AND kind <> 'alias'
    GROUP BY command_id
),
spaces AS (  -- what names are trimmed of, in whatever alphabet
    SELECT array_to_string([chr(code) for code in [
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193,
        8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288
    ]], '') AS all_of_them
),
named AS (
    SELECT
        f.people_space, f.person_id, e.key AS name, f.occurred_at, greatest(f.position, r.position) AS position,
        -- The engine respells decimals (1.10 becomes 1.1), so those are cut out of the text. Ours is without spaces, and
        -- a quote inside a name or value is escaped: ,"name": stands nowhere else.
        CASE WHEN e.type = 'DOUBLE'
            THEN regexp_extract(split_part(',' || f.properties[2:], ',' || to_json(e.key) || ':', 2), '^[-+.0-9eE]+')
            ELSE e.value::VARCHAR
        END AS value,
        CASE
            WHEN s.match = 'kissmetrics'
                THEN lower(replace(trim(translate(e.key, ',:', '  '), spaces.all_of_them), 'İ', 'i̇')) -- as Python's
            ELSE trim(e.key, spaces.all_of_them)
        END AS name_key
    FROM facts AS f
    LEFT JOIN people_spaces AS s USING (people_space)
    LEFT JOIN repeated AS r USING (command_id)
    CROSS JOIN LATERAL json_each(f.properties) AS e
    CROSS JOIN spaces
    WHERE f.kind <> 'alias'
),
latest AS (
    SELECT
        people_space, person_id,
        arg_max(name, (occurred_at, position)) AS name, arg_max(value, (occurred_at, position)) AS value
    FROM named
    GROUP BY people_space, person_id, name_key
),
properties AS (
    -- As text, since building JSON anew would respell numbers.
    SELECT
        people_space, person_id,
        ('{' || string_agg(to_json(name)::VARCHAR || ':' || value, ',' ORDER BY name) || '}')::JSON AS properties
    FROM latest
    GROUP BY people_space, person_id
),
names AS (
    SELECT people_space, person_id, list(identity ORDER BY identity_key) AS identities
    FROM identities
    GROUP BY people_space, person_id
)
SELECT
    n.people_space, n.person_id, n.identities, s.first_seen, s.last_seen, coalesce(p.properties, '{}'::JSON) AS properties
FROM names AS n
LEFT JOIN seen AS s USING (people_space, person_id)
LEFT JOIN properties AS p USING (people_space, person_id);

-- Organizations and accounts are kept in spaces of their own, so that user 32 and account 32 stay apart.
CREATE OR REPLACE VIEW people AS SELECT * FROM profiles WHERE NOT ends_with(people_space, '/accounts');

CREATE OR REPLACE VIEW accounts AS SELECT * FROM profiles WHERE ends_with(people_space, '/accounts');

-- What Kissmetrics' reports count: of the events of one person with one name in one second, one.
CREATE OR REPLACE VIEW kissmetrics_events AS
SELECT
    people_space, person_id, event_key, date_trunc('second', occurred_at) AS occurred_at,
    arg_min(event, position) AS event, arg_min(person, position) AS person, arg_min(properties, position) AS properties,
    arg_min(command_id, position) AS command_id, count(*) AS facts
FROM events
GROUP BY people_space, person_id, event_key, date_trunc('second', occurred_at);
