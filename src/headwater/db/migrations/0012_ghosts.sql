-- Ghosts: those in the trash are shown nowhere, can be restored for 30 days, and are then forgotten.

ALTER TABLE item ADD COLUMN trashed_at timestamptz; -- only of ghosts; NULL: not in the trash
CREATE INDEX item_trashed ON item (dataset_id, trashed_at) WHERE trashed_at IS NOT NULL;

ALTER TABLE dataset_counter ADD COLUMN trashed_items bigint NOT NULL DEFAULT 0; -- of the missing ones

-- Moves that a scan follows: the item that it had taken for a new one.
ALTER TABLE scan_candidate ADD COLUMN moved_to_id bigint;
