-- Clones: whose thumbnail a number names; folders: who made one that may be empty.

-- A thumbnail's number names it in every dataset: it goes with the last item that has it.
DROP INDEX item_origin_thumbnail;
CREATE INDEX item_thumbnail ON item (thumbnail_id) WHERE thumbnail_id IS NOT NULL;

-- Who made a folder on purpose; NULL: it came with an item, and is shown as long as there is something in it.
ALTER TABLE folder ADD COLUMN creator_id bigint;
CREATE INDEX folder_made ON folder (dataset_id, path) WHERE creator_id IS NOT NULL;
