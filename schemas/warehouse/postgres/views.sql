-- The views that people query. Made anew whenever this text changes.

-- Each stored row in full.
CREATE OR REPLACE VIEW full_rows AS
SELECT
    l.file_id, c.file_no, l.source, c.line, coalesce(c.item, '') AS item, c.kind::text AS kind,
    coalesce(c.people_space, l.people_space) AS people_space, c.person, coalesce(c.person_key, c.person) AS person_key,
    c.occurred_at, c.event, coalesce(c.event_key, c.event) AS event_key, c.alias,
    coalesce(c.alias_key, c.alias) AS alias_key, c.properties, c.time_source::text AS time_source,
    l.position || lpad(c.line::text, 12, '0') || lpad(c.item_no::text, 9, '0') AS position,
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
    coalesce(min(p.person_id), k.identity_key) AS person_id
FROM (
    SELECT people_space, person AS identity, person_key AS identity_key FROM full_rows
    UNION ALL
    SELECT people_space, alias, alias_key FROM full_rows WHERE kind = 'alias'
) AS k
LEFT JOIN person_links AS p USING (people_space, identity_key)
GROUP BY k.people_space, k.identity_key;

CREATE OR REPLACE VIEW profiles AS
WITH seen AS (
    SELECT people_space, person_id, min(occurred_at) AS first_seen, max(occurred_at) AS last_seen
    FROM facts
    GROUP BY people_space, person_id
),
repeated AS (
    -- A fact that was told again holds as of the last time, which decides between facts of one moment.
    SELECT command_id, max(position) AS position
    FROM full_rows
    WHERE NOT is_first AND kind <> 'alias'
    GROUP BY command_id
),
spaces (all_of_them) AS (  -- what names are trimmed of, in whatever alphabet
    VALUES (E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680'
        '\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000')
),
latest AS (
    SELECT DISTINCT ON (f.people_space, f.person_id, k.name_key)
        f.people_space, f.person_id, e.key COLLATE "C" AS name, e.value::text AS value
    FROM facts AS f
    LEFT JOIN people_spaces AS s USING (people_space)
    LEFT JOIN repeated AS r USING (command_id)
    CROSS JOIN LATERAL json_each(f.properties) AS e
    CROSS JOIN spaces
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN s.match = 'kissmetrics'
                THEN lower(btrim(translate(e.key, ',:', '  '), spaces.all_of_them) COLLATE "und-x-icu") COLLATE "C"
            ELSE btrim(e.key, spaces.all_of_them) COLLATE "C"
        END AS name_key
    ) AS k
    WHERE f.kind <> 'alias'
    ORDER BY
        f.people_space, f.person_id, k.name_key, f.occurred_at DESC, greatest(f.position, r.position) DESC, name DESC
),
properties AS (
    -- As text, since building JSON anew would respell numbers.
    SELECT
        people_space, person_id,
        ('{' || string_agg(to_json(name)::text || ':' || value, ',' ORDER BY name) || '}')::json AS properties
    FROM latest
    GROUP BY people_space, person_id
),
names AS (
    SELECT people_space, person_id, array_agg(identity ORDER BY identity_key) AS identities
    FROM identities
    GROUP BY people_space, person_id
)
SELECT
    n.people_space, n.person_id, n.identities, s.first_seen, s.last_seen, coalesce(p.properties, '{}'::json) AS properties
FROM names AS n
LEFT JOIN seen AS s USING (people_space, person_id)
LEFT JOIN properties AS p USING (people_space, person_id);

-- Organizations and accounts are kept in spaces of their own, so that user 32 and account 32 stay apart.
CREATE OR REPLACE VIEW people AS SELECT * FROM profiles WHERE people_space NOT LIKE '%/accounts';

CREATE OR REPLACE VIEW accounts AS SELECT * FROM profiles WHERE people_space LIKE '%/accounts';

-- What Kissmetrics' reports count: of the events of one person with one name in one second, one.
CREATE OR REPLACE VIEW kissmetrics_events AS
SELECT DISTINCT ON (people_space, person_id, event_key, date_trunc('second', occurred_at))
    people_space, person_id, event_key, date_trunc('second', occurred_at) AS occurred_at, event, person, properties,
    command_id,
    count(*) OVER (PARTITION BY people_space, person_id, event_key, date_trunc('second', occurred_at)) AS facts
FROM events
ORDER BY people_space, person_id, event_key, date_trunc('second', events.occurred_at), position;
