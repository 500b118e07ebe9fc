-- Data points: how many items an organisation may have. What it uses is in dataset_counter, nowhere else.

ALTER TABLE organization ADD COLUMN data_point_limit bigint -- NULL: unlimited
    CONSTRAINT organization_data_point_limit CHECK (data_point_limit >= 0);

-- Places of uploads under way in organisations with a limit; see quotas.py. A place outlives its upload only in a crash.
CREATE TABLE quota_hold (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX quota_hold_organization ON quota_hold (organization_id);
