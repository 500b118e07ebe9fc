-- Secrets may be kept in an outside vault (OpenBao, HashiCorp Vault): then the row says where, and holds nothing sealed.

ALTER TABLE secret
    ALTER COLUMN sealed DROP NOT NULL,
    ADD COLUMN mount text,
    ADD COLUMN path text,
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT secret_is_in_one_place
        CHECK (num_nonnulls(sealed, path) = 1 AND (mount IS NULL) = (path IS NULL));
CREATE UNIQUE INDEX secret_place_unique ON secret (mount, path) WHERE path IS NOT NULL;
CREATE INDEX integration_secret ON integration (secret_id);
