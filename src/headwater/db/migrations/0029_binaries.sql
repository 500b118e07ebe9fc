-- Every project has a dataset of its own named Binaries, where the SDK and we keep what is no data: saved filters,
-- exports, artifacts. It is in our storage, in no list, and goes with the project.
ALTER TABLE dataset ADD COLUMN is_system boolean NOT NULL DEFAULT false;

-- Earlier clients made it by this name. One that is synced with a bucket or made of others is data: it makes room.
UPDATE dataset
SET is_system = true
WHERE name = 'Binaries' AND driver_id IS NULL AND origin IS NULL AND deleted_at IS NULL;

UPDATE dataset
SET name = 'Binaries (' || id || ')'
WHERE name = 'Binaries' AND NOT is_system AND deleted_at IS NULL;

WITH made AS (
    INSERT INTO dataset (project_id, name, creator_id, is_system)
    SELECT project.id, 'Binaries', project.creator_id, true
    FROM project
    WHERE project.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM dataset WHERE dataset.project_id = project.id AND is_system AND deleted_at IS NULL)
    ORDER BY project.id
    RETURNING id
)
INSERT INTO dataset_counter (dataset_id) SELECT id FROM made;

CREATE UNIQUE INDEX dataset_binaries ON dataset (project_id) WHERE is_system AND deleted_at IS NULL;
