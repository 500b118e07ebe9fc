-- Items whose bytes lie elsewhere: clones, which share the object of another item, and links.

ALTER TABLE item
    -- The dataset in whose storage its object and its thumbnail lie; NULL: its own. Set for clones: their object goes
    -- from our own storage with the last item that names it, and never from a bucket. `object_key` is then always set.
    ADD COLUMN origin_dataset_id bigint,
    ADD COLUMN thumbnail_id bigint, -- the number in its thumbnail's name; NULL: the item's own
    -- Of a linked item what it leads to, see catalog/links.py; NULL: it is no link. A link of our own storage without
    -- an object key has no object at all.
    ADD COLUMN link jsonb,
    ADD COLUMN metadata_edited_at timestamptz; -- when a person last changed its user metadata; older sidecars are silent

-- Who else names an object, or a thumbnail, before it goes.
CREATE INDEX item_origin_object ON item (origin_dataset_id, object_key) WHERE origin_dataset_id IS NOT NULL;
CREATE INDEX item_origin_thumbnail ON item (origin_dataset_id, thumbnail_id) WHERE origin_dataset_id IS NOT NULL;

-- What a dataset was made of, when that was other datasets: {"kind": "clone" | "merge", "datasets": [ids]}. Such a
-- dataset is never synced with the bucket its items lie in.
ALTER TABLE dataset ADD COLUMN origin jsonb;
