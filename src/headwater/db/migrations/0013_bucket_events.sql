-- Automatic upstream: what buckets say about their keys, kept until somebody has looked.

ALTER TABLE dataset
    ADD COLUMN auto_sync boolean NOT NULL DEFAULT true, -- follows the events of its driver
    ADD COLUMN scan_wanted_at timestamptz; -- something happened that hints cannot tell: a scan starts then
CREATE INDEX dataset_scan_wanted ON dataset (scan_wanted_at) WHERE scan_wanted_at IS NOT NULL;

-- A driver's events; kept apart from driver, because it is written with every delivery.
CREATE TABLE driver_events (
    driver_id bigint PRIMARY KEY REFERENCES driver ON DELETE CASCADE,
    is_on boolean NOT NULL DEFAULT false,
    generation integer NOT NULL DEFAULT 1, -- of its hook's secret
    push_account text, -- whose tokens Pub/Sub has to show; NULL: anybody's whom Google knows
    changed_at timestamptz NOT NULL DEFAULT now(),
    last_event_at timestamptz, -- when one came last
    last_happened_at timestamptz, -- when the newest one happened, as the bucket says
    received bigint NOT NULL DEFAULT 0, -- of its own keys
    ignored bigint NOT NULL DEFAULT 0, -- of other kinds, other buckets or folders, or our own files
    looked_at bigint NOT NULL DEFAULT 0, -- requests made to the store
    applied bigint NOT NULL DEFAULT 0, -- hints that are done with
    dropped bigint NOT NULL DEFAULT 0, -- hints given up: a scan finds what they told of
    -- a store that does not answer is left alone for a while
    failures integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    error text
);

-- "Look at this key now": one row a key, however often it is told of.
CREATE TABLE hint (
    driver_id bigint NOT NULL REFERENCES driver ON DELETE CASCADE,
    key text COLLATE "C" NOT NULL, -- as the bucket has it, the driver's prefix included
    content text COLLATE "C", -- of the object that was written, as SIZE:ETAG; NULL: the bucket has to be asked
    sequencer text COLLATE "C", -- of the newest hint, in 64 hexadecimal digits; NULL: their order is not known
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- the first one
    version bigint NOT NULL DEFAULT 1, -- one more with each hint: who looked before it came has to look again
    claim bigint NOT NULL DEFAULT 0, -- one more each time it is taken: who took it before settles nothing any more
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT clock_timestamp(), -- it is taken, or waits for another try
    error text, -- of the last try
    PRIMARY KEY (driver_id, key)
);
CREATE INDEX hint_due ON hint (driver_id, not_before);

-- How much went missing by events in the last hour: more than the brake's limit is not believed.
CREATE TABLE upstream_removal (
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    items bigint NOT NULL,
    PRIMARY KEY (dataset_id, minute)
);
