-- Queries that were slow: their shape, never their values. One row a shape, at most some hundred a dataset.

CREATE TABLE slow_query (
    dataset_id bigint NOT NULL REFERENCES dataset ON DELETE CASCADE,
    shape text COLLATE "C" NOT NULL, -- fields and operators, and the order
    plan text NOT NULL, -- how the last one was answered
    uncovered text[] NOT NULL, -- paths without a column, in the last one
    times bigint NOT NULL DEFAULT 1,
    longest_s real NOT NULL,
    total_s double precision NOT NULL,
    rows bigint, -- that the last one found; NULL: it was stopped
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset_id, shape)
);
