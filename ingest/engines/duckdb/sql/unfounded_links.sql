-- unfounded_links.sql: how many keys are linked that no alias names, that are linked twice, or whose person is not named
-- by the smallest key.   out: count.
WITH named AS (
    SELECT people_space, person_key AS identity_key FROM full_rows WHERE kind = 'alias'
    UNION
    SELECT people_space, alias_key FROM full_rows WHERE kind = 'alias'
)
SELECT
    (SELECT count(*) FROM person_links AS p ANTI JOIN named AS n USING (people_space, identity_key))
    + (SELECT count(*) - count(DISTINCT (people_space, identity_key)) FROM person_links)
    + (
        SELECT count(*)
        FROM (SELECT 1 FROM person_links GROUP BY people_space, person_id HAVING min(identity_key) <> person_id) AS misnamed
    ) AS unfounded
