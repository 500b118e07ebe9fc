-- Exports: files made of a dataset's index, which become items of Binaries; and what has changed since one of them.

CREATE TABLE export (
    command_id bigint PRIMARY KEY REFERENCES command ON DELETE CASCADE,
    dataset_id bigint NOT NULL, -- what is exported
    binaries_id bigint NOT NULL, -- the dataset that its files are items of
    asked jsonb NOT NULL, -- see work/exporting/requests.py
    total bigint NOT NULL, -- items, when it was asked for
    last_id bigint NOT NULL, -- items that came later have larger ids
    -- The cursor: everything up to it lies in `export_file`.
    phase smallint NOT NULL DEFAULT 0, -- which table is read; what comes after the last one is the end
    after_id bigint NOT NULL DEFAULT 0,
    after_sub_id bigint NOT NULL DEFAULT 0, -- of annotations, which are read by (item, id)
    items bigint NOT NULL DEFAULT 0,
    annotations bigint NOT NULL DEFAULT 0,
    removed bigint NOT NULL DEFAULT 0, -- items that are no more, in an export of changes
    dropped_at timestamptz -- when its files were removed
);
CREATE INDEX export_dataset ON export (dataset_id) WHERE dropped_at IS NULL;

CREATE TABLE export_file (
    command_id bigint NOT NULL REFERENCES export ON DELETE CASCADE,
    number integer NOT NULL, -- from 0 on
    name text NOT NULL, -- '' for a piece of the one file that is put together at the end
    key text NOT NULL, -- in the storage of Binaries
    item_id bigint, -- in Binaries; NULL: a piece
    records bigint NOT NULL,
    size_bytes bigint NOT NULL,
    directory_bytes bigint NOT NULL DEFAULT 0, -- of a piece of a ZIP archive: what stands at its end
    md5 text NOT NULL, -- base64
    sha256 text NOT NULL, -- hex
    PRIMARY KEY (command_id, number)
);

-- Versions of a dataset, to ask what has changed since. Everything written by a transaction below `horizon` was seen
-- by the export that made the version; PostgreSQL keeps beside each row which transaction wrote it. Number 0 marks that
-- deletions are noted from then on.
CREATE TABLE dataset_version (
    dataset_id bigint NOT NULL,
    number integer NOT NULL,
    horizon bigint NOT NULL, -- a transaction id of 64 bits
    cluster bigint NOT NULL, -- of PostgreSQL: transaction ids of another one mean nothing here
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset_id, number)
);

CREATE TABLE deleted_item (
    dataset_id bigint NOT NULL,
    item_id bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    deleted_by bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint, -- a transaction id of 64 bits
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset_id, item_id)
);

CREATE FUNCTION note_deleted_items() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_item (dataset_id, item_id, path)
    SELECT gone.dataset_id, gone.id, gone.path
    FROM gone
    WHERE EXISTS (SELECT FROM dataset_version WHERE dataset_version.dataset_id = gone.dataset_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_deleted_items AFTER DELETE ON item
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_items();

-- The transaction that wrote a row, of whose id the row keeps 32 bits: the newest one that it can be, so nothing that
-- has changed ever looks older than it is.
CREATE FUNCTION written_by(written xid, next_id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT next_id - ((next_id - written::text::bigint) & 4294967295)
$$;
