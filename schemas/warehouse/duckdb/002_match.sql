-- How the names of each file match, so that a change of the setting can tell whose rows have to be made anew.

ALTER TABLE ledger ADD COLUMN match VARCHAR;

UPDATE ledger SET match = s.match FROM people_spaces AS s WHERE s.people_space = ledger.people_space;
