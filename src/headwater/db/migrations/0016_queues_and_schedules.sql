-- Syncs at set times, and queues of events that workers read.

CREATE TABLE schedule (
    dataset_id bigint PRIMARY KEY REFERENCES dataset ON DELETE CASCADE,
    cron text NOT NULL, -- five fields
    timezone text NOT NULL, -- as the IANA database names it
    active boolean NOT NULL DEFAULT true,
    is_default boolean NOT NULL DEFAULT false, -- made because events arrive by themselves; nobody has touched it
    next_run_at timestamptz, -- NULL: off
    last_run_at timestamptz,
    last_outcome text CHECK (last_outcome IN ('started', 'skipped', 'refused')),
    last_message text, -- why it was skipped or refused
    last_command_id bigint REFERENCES command ON DELETE SET NULL,
    is_awaited boolean NOT NULL DEFAULT false, -- the end of that command has not been looked at
    failures integer NOT NULL DEFAULT 0 -- in a row
);
CREATE INDEX schedule_due ON schedule (next_run_at) WHERE next_run_at IS NOT NULL;
CREATE INDEX schedule_awaited ON schedule (last_command_id) WHERE last_command_id IS NOT NULL;

-- The queue that the cloud puts a driver's events into, and which worker reads it.
CREATE TABLE event_queue (
    driver_id bigint PRIMARY KEY REFERENCES driver ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('sqs', 'azure')),
    url text, -- sqs: of the queue
    name text, -- azure: in the account of the driver's integration …
    endpoint text, -- … where that is not Azure itself
    active boolean NOT NULL DEFAULT true,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- who reads by an older row stops
    reader text, -- who holds the lease …
    leased_until timestamptz NOT NULL DEFAULT '-infinity', -- … until then
    try_after timestamptz NOT NULL DEFAULT '-infinity', -- after failures
    failures integer NOT NULL DEFAULT 0, -- in a row
    error text, -- of the last failure; NULL: the last request succeeded
    is_told boolean NOT NULL DEFAULT false, -- people know of the failure
    read_at timestamptz, -- the last request that succeeded
    received_at timestamptz, -- the last message
    messages bigint NOT NULL DEFAULT 0,
    unreadable bigint NOT NULL DEFAULT 0, -- of those
    is_unreadable_told boolean NOT NULL DEFAULT false
);
CREATE INDEX event_queue_claim ON event_queue (leased_until) WHERE active;
