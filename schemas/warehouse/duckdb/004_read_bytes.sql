-- How many stored bytes of a file were read: as many as were listed, unless the store unpacks on the way. Only what was
-- read as it was listed may be archived or deleted. NULL: read before this was kept, or nothing was.

ALTER TABLE ledger ADD COLUMN read_bytes BIGINT;
