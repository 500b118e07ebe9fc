-- Signing in: limits of guessing, tokens that a new password ends, accounts of OpenID providers.

ALTER TABLE account ADD COLUMN tokens_valid_after timestamptz; -- NULL: no token was ever called in

-- What failed log-ins cost, by address, account, and both: see catalog/logins.py. Keys are digests, because people
-- type passwords into the wrong field. Paid debts go, a few with each failure.
CREATE TABLE login_debt (
    key bytea PRIMARY KEY,
    paid_at timestamptz NOT NULL
);
CREATE INDEX login_debt_paid ON login_debt (paid_at);

-- From where an account has signed in with its password; the same digests.
CREATE TABLE login_place (
    key bytea PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
CREATE INDEX login_place_seen ON login_place (seen_at);

-- Who an account is at an OpenID provider. Addresses change, this pair does not.
CREATE TABLE account_identity (
    issuer text NOT NULL,
    subject text NOT NULL,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX account_identity_account ON account_identity (account_id);
