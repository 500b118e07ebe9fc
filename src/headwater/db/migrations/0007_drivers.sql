-- Drivers that only read, what their last check found, and an organisation's word on deleting from buckets.

ALTER TABLE driver
    ADD COLUMN read_only boolean NOT NULL DEFAULT false, -- nothing is written to the bucket
    ADD COLUMN report jsonb, -- of the last check, see work/checks.py
    ADD COLUMN checked_at timestamptz,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT driver_read_only_keeps CHECK (NOT (read_only AND allow_delete));

ALTER TABLE organization
    ADD COLUMN forbid_external_delete boolean NOT NULL DEFAULT false; -- whatever a driver says
