-- Scans in parallel: key ranges that are claimed, split and joined; rules of a dataset's sync.

ALTER TABLE dataset ADD COLUMN sync_rules jsonb NOT NULL DEFAULT '{}'; -- see catalog/sync/rules.py

ALTER TABLE scan
    ADD COLUMN rules jsonb NOT NULL DEFAULT '{}', -- the dataset's when it began: one scan, one set of rules
    ADD COLUMN shown bigint NOT NULL DEFAULT 0, -- the most objects that were ever shown as listed
    ADD COLUMN resumed_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when its present run began
    ADD COLUMN first_item_id bigint, -- items that came since have no smaller id
    ADD COLUMN window_began_at timestamptz, -- of the rate: objects listed since then …
    ADD COLUMN window_listed bigint NOT NULL DEFAULT 0,
    ADD COLUMN objects_per_s real; -- … and the rate of the window before

CREATE INDEX scan_dataset ON scan (dataset_id, id);

ALTER TABLE scan_shard
    ADD COLUMN lane integer, -- whose job works on it; NULL: nobody's
    ADD COLUMN claim bigint NOT NULL DEFAULT 0, -- one more at each claim: an older one commits nothing any more
    ADD COLUMN split_after timestamptz NOT NULL DEFAULT '-infinity', -- nobody need try to split it before
    ADD COLUMN first_path text COLLATE "C", -- the first one listed; NULL: none
    ADD COLUMN beyond_path text COLLATE "C", -- the first one listed behind until_path; NULL: none
    ADD COLUMN listed bigint NOT NULL DEFAULT 0,
    ADD COLUMN kept_deleted bigint NOT NULL DEFAULT 0,
    ADD COLUMN skipped bigint NOT NULL DEFAULT 0,
    ADD COLUMN gone bigint NOT NULL DEFAULT 0;

ALTER TABLE scan_candidate ADD COLUMN shard integer NOT NULL DEFAULT 0;

-- The first reader of a row notes on its page that it is committed, and with data checksums each such page is written
-- to the log as a whole: 1.8 GB for ten million items at their first sync without a change. A vacuum soon after they
-- came does it for nothing.
ALTER TABLE item SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 10000);

-- Lists of ids shrink little, and compressing them costs a first sync 8 % of the database's time.
ALTER TABLE event ALTER COLUMN item_ids SET STORAGE EXTERNAL;
