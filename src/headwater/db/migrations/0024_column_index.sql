-- The column index: the fields of a dataset's items as columns, for counts and pages of any filter. See
-- docs/decisions/0026-column-index.md. A segment is the items of a dataset with the same `id >> 16`.

-- Which datasets have one.
CREATE TABLE column_index (
    dataset_id bigint PRIMARY KEY,
    -- Transactions that may not have seen this row change items without telling. All of them are older than this one,
    -- the first that began after the row was committed: when they have ended, the index can be used.
    awaited_xid xid8,
    ready_at timestamptz, -- every segment that there was then is touched; NULL: not used yet
    hash_key bytea NOT NULL, -- 16 random bytes: nobody makes values whose hashes collide
    paths_sought_at timestamptz, -- when metadata was last searched for paths to cover
    built_at timestamptz, -- written first in each build, so that two at once are one after the other
    error text, -- why the last build failed
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What it covers. A number is never used again, and its encoding never changes: a path that outgrows its encoding
-- gets a new number.
CREATE TABLE column_path (
    dataset_id bigint NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    path text COLLATE "C" NOT NULL, -- as filters name it: filename, metadata.user.a.b
    encoding text NOT NULL CHECK (encoding IN ('codes', 'numbers', 'integers', 'hashes', 'paths')),
    is_pinned boolean NOT NULL DEFAULT false, -- somebody asked for it
    is_excluded boolean NOT NULL DEFAULT false, -- somebody asked for it not to be covered
    PRIMARY KEY (dataset_id, number),
    CONSTRAINT column_path_unique UNIQUE (dataset_id, path)
);

-- The values of paths encoded as codes. Only ever added to.
CREATE TABLE column_value (
    dataset_id bigint NOT NULL,
    path_number bigint NOT NULL,
    code integer NOT NULL,
    value jsonb NOT NULL,
    PRIMARY KEY (dataset_id, path_number, code)
);

CREATE SEQUENCE column_version_seq;
CREATE TABLE column_segment (
    dataset_id bigint NOT NULL,
    segment bigint NOT NULL,
    version bigint NOT NULL DEFAULT nextval('column_version_seq'), -- of all chunks of the segment; never used again
    rows integer NOT NULL,
    offsets bytea NOT NULL, -- `id & 65535` of each row, in the order of ids
    path_numbers bigint[] NOT NULL, -- which have a chunk
    PRIMARY KEY (dataset_id, segment)
);

CREATE TABLE column_chunk (
    dataset_id bigint NOT NULL,
    path_number bigint NOT NULL,
    segment bigint NOT NULL,
    data bytea NOT NULL, -- see catalog/columns/encoding.py
    present integer NOT NULL, -- how many rows have a value
    PRIMARY KEY (dataset_id, path_number, segment)
);
-- They are compressed already, and replaced as a whole.
ALTER TABLE column_segment ALTER COLUMN offsets SET STORAGE EXTERNAL;
ALTER TABLE column_chunk ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE column_segment SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
ALTER TABLE column_chunk SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    toast.autovacuum_vacuum_scale_factor = 0.05
);

-- What is no longer as the columns say. One row a statement and segment, added and removed, never changed and never
-- unique: nobody waits for anybody, and a builder that removes what it saw leaves what came since.
CREATE TABLE column_touched (
    dataset_id bigint NOT NULL,
    segment bigint NOT NULL,
    item_ids bigint[], -- NULL: any item of the segment
    touched_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX column_touched_segment ON column_touched (dataset_id, segment);
ALTER TABLE column_touched SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = -1
);

-- Ids and datasets of items never change, so the new rows of an UPDATE tell all.
CREATE FUNCTION note_touched_columns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM column_index) THEN
        RETURN NULL;
    ELSIF (SELECT count(*) FROM touched) <= 8192 THEN
        INSERT INTO column_touched (dataset_id, segment, item_ids)
        SELECT dataset_id, id >> 16, array_agg(id)
        FROM touched
        WHERE dataset_id IN (SELECT dataset_id FROM column_index)
        GROUP BY dataset_id, id >> 16;
    ELSE
        INSERT INTO column_touched (dataset_id, segment)
        SELECT DISTINCT dataset_id, id >> 16
        FROM touched
        WHERE dataset_id IN (SELECT dataset_id FROM column_index);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER item_inserted_touches_columns AFTER INSERT ON item
REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION note_touched_columns();
CREATE TRIGGER item_updated_touches_columns AFTER UPDATE ON item
REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION note_touched_columns();
CREATE TRIGGER item_deleted_touches_columns AFTER DELETE ON item
REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION note_touched_columns();
