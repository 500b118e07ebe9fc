-- Resumable uploads (tus), shared by all API processes: bytes go to the dataset's store as parts, the rest of a request
-- that does not fill a part waits here.
CREATE TABLE tus_upload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE, -- nobody else may know of it
    path text COLLATE "C" NOT NULL,
    mode text NOT NULL,
    size_bytes bigint NOT NULL,
    offset_bytes bigint NOT NULL DEFAULT 0, -- what is durable: in parts, and in the tail after them
    crc32 bigint NOT NULL DEFAULT 0, -- of the bytes before the offset
    wanted_crc32 bigint, -- of all, as the client told
    told text NOT NULL, -- the header Upload-Metadata, which is told again
    description text,
    user_metadata jsonb,
    system_metadata jsonb,
    link jsonb, -- what a file that is a link leads to; known with its last byte
    object_key text NOT NULL,
    part_bytes bigint NOT NULL,
    part_state jsonb, -- what the store has to know; NULL: no part was put yet
    hold_id bigint, -- its place in the quota
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    item_id bigint, -- of a finished one
    outcome text,
    ended_at timestamptz, -- finished, or given up
    failure text, -- why it was given up, a sentence
    -- One request at a time: a lease, which ends by itself when its process dies. Who wants it next says so.
    holder bigint,
    held_until timestamptz,
    is_wanted boolean NOT NULL DEFAULT false
);
CREATE INDEX tus_upload_expires ON tus_upload (expires_at);
CREATE INDEX tus_upload_dataset ON tus_upload (dataset_id);

CREATE TABLE tus_part (
    upload_id bigint NOT NULL REFERENCES tus_upload ON DELETE CASCADE,
    number integer NOT NULL,
    size_bytes bigint NOT NULL,
    etag text NOT NULL,
    PRIMARY KEY (upload_id, number)
);

CREATE TABLE tus_tail (
    upload_id bigint NOT NULL REFERENCES tus_upload ON DELETE CASCADE,
    start_bytes bigint NOT NULL, -- where in the file it begins
    body bytea NOT NULL,
    PRIMARY KEY (upload_id, start_bytes)
);
ALTER TABLE tus_tail ALTER body SET STORAGE EXTERNAL;
