-- One row for each of the last transactions that changed anything, so that a load which looked before them need look only
-- at the files whose commands came with them. NULL: commands went or changed, too, or nobody wrote it down.
ALTER TABLE warehouse_version ADD COLUMN came bigint[];

ALTER TABLE warehouse_version ADD PRIMARY KEY (version);
