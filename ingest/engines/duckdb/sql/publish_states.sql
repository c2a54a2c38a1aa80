-- publish_states.sql: how many files of each source are in each state; a redrive counts as its file.
CREATE TABLE published.states AS
SELECT source, state, count(DISTINCT of_file_no) AS files
FROM published.ledger
GROUP BY source, state
