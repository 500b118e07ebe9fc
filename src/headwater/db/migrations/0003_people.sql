-- People: the SDK's role of those who only work in projects they are given; bots; API keys.

ALTER TABLE member
    DROP CONSTRAINT member_role_check,
    ADD CONSTRAINT member_role_check CHECK (role IN ('owner', 'admin', 'member', 'worker'));

ALTER TABLE account
    ADD COLUMN kind text NOT NULL DEFAULT 'user' CHECK (kind IN ('user', 'bot')),
    ADD COLUMN name text, -- NULL: the e-mail address says it
    ADD COLUMN bot_project_id bigint REFERENCES project ON DELETE SET NULL, -- of a bot: where it was made
    ADD COLUMN deleted_at timestamptz; -- no log-in, no key; the row stays, because others name it as their creator
CREATE INDEX account_bot_project ON account (bot_project_id) WHERE bot_project_id IS NOT NULL;

-- The key itself is a signed token that only its owner has; this row says that it still counts.
CREATE TABLE api_key (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz -- within a few minutes
);
CREATE INDEX api_key_account ON api_key (account_id);

-- Somebody is asked to join. No row here tells whether the address has an account.
CREATE TABLE invitation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'worker')),
    inviter text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX invitation_email_unique ON invitation (organization_id, lower(email));
CREATE INDEX invitation_email ON invitation (lower(email));
