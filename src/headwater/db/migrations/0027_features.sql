-- Collections of items; feature sets and their vectors.

-- An item is in it when its metadata.system.collections.c<slot> is true.
CREATE TABLE item_collection (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    slot smallint NOT NULL CHECK (slot BETWEEN 0 AND 9),
    name text COLLATE "C" NOT NULL,
    -- its marks are being taken from the items; the row goes with the last of them
    deleting_command_id bigint,
    CONSTRAINT item_collection_slot_unique UNIQUE (dataset_id, slot),
    CONSTRAINT item_collection_name_unique UNIQUE (dataset_id, name)
);

CREATE TABLE feature_set (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,
    size integer NOT NULL CHECK (size BETWEEN 1 AND 16000), -- numbers of each of its vectors
    kind text COLLATE "C" NOT NULL, -- whatever people call it: clip, 2d, PCA, …
    entity_type text COLLATE "C" NOT NULL CHECK (entity_type IN ('item', 'annotation', 'dataset')),
    model_id text COLLATE "C",
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by_id bigint NOT NULL REFERENCES account,
    index_metric text, -- by which its HNSW index orders; NULL: there is none that is complete
    indexing_command_id bigint, -- which is making one
    deleted_at timestamptz -- out of sight; its vectors go in a job, in pieces
);
CREATE UNIQUE INDEX feature_set_name_unique ON feature_set (project_id, name) WHERE deleted_at IS NULL;

CREATE SEQUENCE feature_vector_id_seq CACHE 1;

-- The numbers are plain reals, so that all but the search for similar ones works without the extension `vector`.
CREATE TABLE feature_vector (
    dataset_id bigint NOT NULL,
    id bigint NOT NULL DEFAULT nextval('feature_vector_id_seq'),
    feature_set_id bigint NOT NULL,
    entity_id bigint NOT NULL, -- of an item, an annotation, or the dataset itself: as entity_type says
    entity_type text COLLATE "C" NOT NULL,
    creator_id bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    version text COLLATE "C",
    parent_id bigint,
    value real[] NOT NULL,
    PRIMARY KEY (dataset_id, id),
    CONSTRAINT feature_vector_entity_unique UNIQUE (entity_id, feature_set_id)
) WITH (toast_tuple_target = 8160); -- vectors of up to some 2,000 numbers stay in the row, where a search reads them
ALTER TABLE feature_vector ALTER COLUMN value SET STORAGE MAIN;
CREATE INDEX feature_vector_id ON feature_vector (id); -- GET /features/vectors/{id} knows no dataset
CREATE INDEX feature_vector_set ON feature_vector (feature_set_id, id);

-- Whatever deletes items or annotations, their vectors go with them. Planned for few rows of a large table.
CREATE FUNCTION delete_vectors_of_gone() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM feature_vector USING gone
    WHERE feature_vector.entity_id = gone.id AND feature_vector.dataset_id = gone.dataset_id
        AND feature_vector.entity_type = TG_TABLE_NAME;
    RETURN NULL;
END
$$;
CREATE TRIGGER item_vectors AFTER DELETE ON item
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION delete_vectors_of_gone();
CREATE TRIGGER annotation_vectors AFTER DELETE ON annotation
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION delete_vectors_of_gone();

-- For searches by similarity. A server without it says so when they are asked for.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS vector;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'The extension vector cannot be made here: %', SQLERRM;
END
$$;
