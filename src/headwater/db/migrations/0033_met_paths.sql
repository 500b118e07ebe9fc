-- A segment knows every path that its documents have, so that it knows, too, that a path is in none of them.
-- NULL: it does not know; it was built before, or there are too many.
ALTER TABLE column_segment ADD COLUMN met_paths text[] COLLATE "C";
