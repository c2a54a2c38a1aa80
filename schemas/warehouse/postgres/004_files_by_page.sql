-- Rows of a file stand beside each other, so it is enough to know which files a stretch of pages holds: a load writes one
-- index less, row by row. A stretch that nobody summed up yet is read whole, so that is asked for as soon as it is full.
DROP INDEX command_rows_file;

CREATE INDEX command_rows_file ON command_rows USING brin (file_no) WITH (autosummarize = on);
