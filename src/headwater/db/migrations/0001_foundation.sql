-- Who: accounts, organisations, projects.

CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX account_email_unique ON account (lower(email));

CREATE TABLE organization (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CONSTRAINT organization_name_unique UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE member (
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    PRIMARY KEY (organization_id, account_id)
);
CREATE INDEX member_account ON member (account_id);

CREATE TABLE project (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    name text NOT NULL,
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz -- the row goes when its last dataset has gone
);
CREATE UNIQUE INDEX project_name_unique ON project (organization_id, name) WHERE deleted_at IS NULL;

CREATE TABLE project_member (
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'developer', 'annotationManager', 'annotator')),
    PRIMARY KEY (project_id, account_id)
);
CREATE INDEX project_member_account ON project_member (account_id);

-- Where the bytes are: secrets, integrations, drivers.

-- Sealed by vault/local.py; nothing here is in clear.
CREATE TABLE secret (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sealed bytea NOT NULL
);

CREATE TABLE integration (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    name text NOT NULL,
    kind text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    secret_id bigint REFERENCES secret,
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT integration_name_unique UNIQUE (organization_id, name)
);

CREATE TABLE driver (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    integration_id bigint NOT NULL CONSTRAINT driver_integration REFERENCES integration,
    name text NOT NULL,
    kind text NOT NULL, -- as the SDK names it: s3, storage
    -- s3: the bucket; local folder: its absolute path
    root text NOT NULL,
    -- folder inside the root: '' or 'a/b/', never with a slash in front
    prefix text NOT NULL DEFAULT '',
    region text,
    storage_class text,
    endpoint text,
    allow_delete boolean NOT NULL,
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT driver_name_unique UNIQUE (project_id, name)
);

CREATE TABLE dataset (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    driver_id bigint CONSTRAINT dataset_driver REFERENCES driver, -- NULL: our own storage
    name text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    readonly boolean NOT NULL DEFAULT false,
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by_id bigint REFERENCES account,
    -- set by DELETE; the rows go in a job, in pieces
    deleted_at timestamptz
);
CREATE UNIQUE INDEX dataset_name_unique ON dataset (project_id, name) WHERE deleted_at IS NULL;

-- Kept apart from dataset: written with every batch, read at a glance.
CREATE TABLE dataset_counter (
    dataset_id bigint PRIMARY KEY REFERENCES dataset ON DELETE CASCADE,
    items bigint NOT NULL DEFAULT 0,
    hidden_items bigint NOT NULL DEFAULT 0,
    missing_items bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    prepared_items bigint NOT NULL DEFAULT 0,
    failed_items bigint NOT NULL DEFAULT 0,
    synced_at timestamptz -- end of the last good sync
);

-- What is in them. Big tables are keyed by dataset first, and have no foreign key to it: a check a row would cost
-- a sync half its speed, and rows of a deleted dataset go in pieces, by a job.

-- Folders and items share one row of ids: the SDK takes both for items.
CREATE SEQUENCE item_id_seq CACHE 1;

CREATE TABLE folder (
    dataset_id bigint NOT NULL,
    id bigint NOT NULL DEFAULT nextval('item_id_seq'),
    path text COLLATE "C" NOT NULL, -- '/' or '/a/b': see folders.folder_of
    parent_id bigint, -- NULL: the root
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset_id, id),
    CONSTRAINT folder_path_unique UNIQUE (dataset_id, path)
);
CREATE INDEX folder_id ON folder (id); -- GET /items/{id} knows no dataset
CREATE INDEX folder_parent ON folder (dataset_id, parent_id); -- one level of a tree

CREATE TABLE item (
    dataset_id bigint NOT NULL,
    id bigint NOT NULL DEFAULT nextval('item_id_seq'),
    folder_id bigint NOT NULL,
    size_bytes bigint NOT NULL,
    -- when the object was last seen to be what this row says: a scan that began before knows no better
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    modified_at timestamptz, -- as the store says
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    missing_since timestamptz, -- a ghost: the bucket no longer has the object
    creator_id bigint, -- NULL: found by a sync
    updated_by_id bigint,
    width_px integer,
    height_px integer,
    etl_state smallint NOT NULL DEFAULT 0, -- preprocessing: 0 waiting, 1 done, 2 failed
    hidden boolean NOT NULL DEFAULT false,
    path text COLLATE "C" NOT NULL, -- '/' + the key below the driver's prefix
    object_key text COLLATE "C", -- NULL: the path says it; set in our own storage, where keys follow no path
    etag text COLLATE "C" NOT NULL, -- without quotes
    thumbnail_type text, -- mime type of the thumbnail; NULL: there is none
    mime_type text, -- guessed from the name until preprocessing has read the bytes
    description text,
    user_metadata jsonb,
    system_metadata jsonb, -- what has no column: exif, channels, etl, …
    PRIMARY KEY (dataset_id, id),
    CONSTRAINT item_path_unique UNIQUE (dataset_id, path)
);
CREATE INDEX item_id ON item (id); -- GET /items/{id} knows no dataset
CREATE INDEX item_folder ON item (dataset_id, folder_id, id); -- one folder's items, in order
CREATE INDEX item_missing ON item (dataset_id, path) WHERE missing_since IS NOT NULL; -- list of ghosts

-- Deleted here on purpose while the bucket still has (or had, for a scan that began before) the object.
CREATE TABLE tombstone (
    dataset_id bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    object_deleted_at timestamptz, -- NULL: the object is still there
    PRIMARY KEY (dataset_id, path)
);

-- Work: commands, scans, events, triggers.

CREATE TABLE command (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    dataset_id bigint REFERENCES dataset ON DELETE CASCADE,
    kind text NOT NULL,
    status text NOT NULL DEFAULT 'created'
        CHECK (status IN ('created', 'in-progress', 'success', 'failed', 'canceled', 'aborted', 'timeout')),
    progress_percent real NOT NULL DEFAULT 0,
    spec jsonb NOT NULL DEFAULT '{}',
    warning text,
    error text,
    abort_requested boolean NOT NULL DEFAULT false,
    creator_id bigint REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX command_dataset ON command (dataset_id, id);
CREATE INDEX command_project ON command (project_id, id);

CREATE TABLE scan (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    command_id bigint NOT NULL REFERENCES command ON DELETE CASCADE,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'held', 'done', 'stopped')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    confirm_missing boolean NOT NULL DEFAULT false,
    present bigint NOT NULL DEFAULT 0, -- items the index had when it began
    listed bigint NOT NULL DEFAULT 0,
    created bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    returned bigint NOT NULL DEFAULT 0,
    kept_deleted bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0, -- candidates found, recorded or not
    marked bigint NOT NULL DEFAULT 0, -- made ghosts at the end
    skipped_examples jsonb NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX scan_one_at_a_time ON scan (dataset_id) WHERE state = 'running';
CREATE INDEX scan_command ON scan (command_id);

CREATE TABLE scan_shard (
    scan_id bigint NOT NULL REFERENCES scan ON DELETE CASCADE,
    number integer NOT NULL,
    after_path text COLLATE "C", -- the range is (after_path, until_path]; NULL: no bound
    until_path text COLLATE "C",
    cursor_path text COLLATE "C", -- last committed path
    staged boolean NOT NULL DEFAULT false, -- the store lists out of order: see scan_stage
    done boolean NOT NULL DEFAULT false,
    PRIMARY KEY (scan_id, number)
);

CREATE TABLE scan_candidate (
    scan_id bigint NOT NULL REFERENCES scan ON DELETE CASCADE,
    item_id bigint NOT NULL,
    PRIMARY KEY (scan_id, item_id)
);

-- Stage of a shard whose store lists out of order; unlogged: after a crash the shard is listed anew.
CREATE UNLOGGED TABLE scan_stage (
    scan_id bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    etag text COLLATE "C" NOT NULL,
    modified_at timestamptz,
    PRIMARY KEY (scan_id, path)
);

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id bigint NOT NULL,
    resource text NOT NULL,
    action text NOT NULL,
    item_ids bigint[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE service (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint REFERENCES project ON DELETE CASCADE, -- NULL: shared by all
    name text NOT NULL,
    task text NOT NULL, -- the job that runs it
    queue text NOT NULL DEFAULT 'default',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT service_name_unique UNIQUE NULLS NOT DISTINCT (project_id, name)
);

CREATE TABLE trigger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint REFERENCES project ON DELETE CASCADE, -- NULL: every project
    service_id bigint NOT NULL REFERENCES service ON DELETE CASCADE,
    name text NOT NULL,
    resource text NOT NULL,
    actions text[] NOT NULL,
    filter jsonb NOT NULL DEFAULT '{}',
    input jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT trigger_name_unique UNIQUE NULLS NOT DISTINCT (project_id, name)
);

INSERT INTO service (name, task) VALUES ('preprocessing', 'preprocess_items');
INSERT INTO trigger (service_id, name, resource, actions)
SELECT id, 'preprocessing', 'Item', '{Created,Updated}' FROM service WHERE name = 'preprocessing';
