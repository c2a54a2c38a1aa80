-- publish_key_order.sql: the rows of the published ledger in natural order of their keys, since texts take long to sort.
CREATE TABLE published.key_order AS SELECT rowid AS row FROM published.ledger ORDER BY natural_key, file_no
