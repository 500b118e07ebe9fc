-- Uploads whose bytes clients send to a bucket themselves: planned here, committed once they lie there.
CREATE TABLE planned_upload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    account_id bigint NOT NULL, -- who planned it; nobody else commits it
    path text COLLATE "C" NOT NULL,
    mode text NOT NULL,
    size_bytes bigint NOT NULL,
    part_bytes bigint, -- of an object that is sent in parts
    part_state jsonb, -- what the store has to know of these, once they were begun
    hold_id bigint, -- its place in the quota
    planned_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    -- Of a committed one, which stays until it expires: a commit that is repeated is answered as it was.
    item_id bigint,
    outcome text
);
CREATE INDEX planned_upload_expires ON planned_upload (expires_at);
