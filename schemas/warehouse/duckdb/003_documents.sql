-- For formats of documents, whose items are told apart by more than they say, and mended one by one.

ALTER TABLE command_rows ADD COLUMN identity VARCHAR;      -- JSON array, see Command.identity; NULL: what the row says

ALTER TABLE failed_line_rows ADD COLUMN context BLOB;      -- what of its document a mended item is judged with
