-- Imports of CSV files: one row beside the command that tells of it.

CREATE TABLE csv_import (
    command_id bigint PRIMARY KEY REFERENCES command ON DELETE CASCADE,
    dataset_id bigint NOT NULL,
    creator_id bigint NOT NULL,
    name text NOT NULL, -- of the file
    folder text NOT NULL, -- where its items go
    is_dry_run boolean NOT NULL,
    digest text NOT NULL, -- SHA-256 of the file, hex
    size_bytes bigint NOT NULL,
    encoding text NOT NULL,
    separator text NOT NULL,
    skips_spaces boolean NOT NULL,
    columns jsonb NOT NULL, -- which cell is what, see wire/csv_rows.py
    key text NOT NULL, -- of the file in our own storage is `key`.csv, of its verdicts `key`/NUMBER.csv
    -- The cursor. Every row through `settled_row` has its verdict; reading begins at the row `point_row`, which is at or
    -- before the next one and begins at `point_byte`.
    point_byte bigint NOT NULL,
    point_row bigint NOT NULL,
    settled_row bigint NOT NULL,
    pieces integer NOT NULL DEFAULT 0, -- of the verdicts, in our own storage
    created bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    dropped_at timestamptz -- when its file and its verdicts were removed
);
-- The same file once more, and what is to be cleaned up.
CREATE INDEX csv_import_kept ON csv_import (dataset_id, digest) WHERE dropped_at IS NULL;
