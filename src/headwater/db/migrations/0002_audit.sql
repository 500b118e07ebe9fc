-- Who changed what. Nothing here refers to rows that may go: the log outlives what it tells of.

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organization ON DELETE CASCADE,
    project_id bigint, -- NULL: a change of the organisation itself
    actor text NOT NULL, -- e-mail address at that time
    action text NOT NULL, -- noun.verb, for example driver.created
    target text NOT NULL, -- its name at that time
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_organization ON audit (organization_id, id);
