-- What the owners of an organisation are told, beside what they ask for.

CREATE TABLE notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    project_id bigint REFERENCES project ON DELETE CASCADE, -- NULL: about the organisation as a whole
    level text NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    title text NOT NULL,
    message text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notice_organization ON notice (organization_id, id);
