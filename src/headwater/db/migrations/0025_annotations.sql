-- Annotations: what people and models say of items. They are ours alone, never in the bucket.

CREATE SEQUENCE annotation_id_seq CACHE 1;

CREATE TABLE annotation (
    dataset_id bigint NOT NULL,
    id bigint NOT NULL DEFAULT nextval('annotation_id_seq'),
    item_id bigint NOT NULL, -- of the same dataset; its rows go before it does: catalog/removals.py
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    creator_id bigint NOT NULL,
    updated_by_id bigint NOT NULL,
    type text COLLATE "C" NOT NULL, -- as the SDK names it: box, segment, …
    label text COLLATE "C" NOT NULL,
    source text,
    hash text,
    description text,
    coordinates jsonb, -- NULL: this type has none
    attributes jsonb,
    system_metadata jsonb NOT NULL DEFAULT '{}', -- frames, status, parentId, objectId, attributes, …
    user_metadata jsonb NOT NULL DEFAULT '{}', -- whatever JSON people put there
    extra jsonb, -- what else clients sent and want back: labelSuggestions
    PRIMARY KEY (dataset_id, id)
);
CREATE INDEX annotation_id ON annotation (id); -- GET /annotations/{id} knows no dataset
CREATE INDEX annotation_item ON annotation (dataset_id, item_id, id); -- one item's, in the order they came
CREATE INDEX annotation_label ON annotation (dataset_id, label, item_id); -- which items have a label, how many

-- Kept right by who adds and removes annotations, in the same transaction.
ALTER TABLE item ADD COLUMN annotations_count integer NOT NULL DEFAULT 0;
ALTER TABLE dataset_counter
    ADD COLUMN annotations bigint NOT NULL DEFAULT 0,
    ADD COLUMN annotated_items bigint NOT NULL DEFAULT 0; -- items with at least one
