-- What becomes of the objects of items deleted here; comparing an index with its bucket.

ALTER TABLE tombstone
    ADD COLUMN object_key text COLLATE "C", -- as item.object_key
    ADD COLUMN etag text COLLATE "C", -- of the object that was to go; NULL: whichever is there
    ADD COLUMN object_asked_at timestamptz, -- when its deletion from the store was asked for; NULL: it is to stay
    ADD COLUMN refused_at timestamptz, -- the store would not delete it …
    ADD COLUMN object_delete_error text; -- … and this is why
CREATE INDEX tombstone_refused ON tombstone (dataset_id, path) WHERE refused_at IS NOT NULL;

ALTER TABLE dataset ADD COLUMN refusals_told_at timestamptz; -- one notice a burst, not one an object

-- Where an object of our own storage belongs; the items of buckets have no row in it.
CREATE INDEX item_object_key ON item (dataset_id, object_key) WHERE object_key IS NOT NULL;

-- The listing of a store that lists out of order; unlogged: after a crash it is listed anew.
CREATE UNLOGGED TABLE verify_stage (
    command_id bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    etag text COLLATE "C" NOT NULL,
    modified text NOT NULL,
    PRIMARY KEY (command_id, key)
);
