-- What people annotate, and how: labels and attributes (an ontology), and what annotators are told besides (a recipe).

-- Both may belong to several projects at once, and go with the last of them: catalog/shared.py.
CREATE TABLE ontology (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_ids bigint[] NOT NULL CHECK (cardinality(project_ids) > 0),
    title text,
    labels jsonb NOT NULL DEFAULT '[]', -- a tree: catalog/labels.py
    attributes jsonb NOT NULL DEFAULT '[]', -- catalog/attributes.py
    attribute_names jsonb NOT NULL DEFAULT '[]', -- as clients of old kept them: names alone
    metadata jsonb NOT NULL DEFAULT '{}',
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by_id bigint REFERENCES account
);
CREATE INDEX ontology_projects ON ontology USING gin (project_ids);

CREATE TABLE recipe (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_ids bigint[] NOT NULL CHECK (cardinality(project_ids) > 0),
    ontology_ids bigint[] NOT NULL DEFAULT '{}', -- the first one's labels are those of the dataset
    title text NOT NULL,
    description text,
    settings jsonb NOT NULL DEFAULT '{}', -- instructions, examples and what else only clients read
    metadata jsonb NOT NULL DEFAULT '{}',
    creator_id bigint NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by_id bigint REFERENCES account
);
CREATE INDEX recipe_projects ON recipe USING gin (project_ids);
CREATE INDEX recipe_ontologies ON recipe USING gin (ontology_ids);

ALTER TABLE dataset
    ADD COLUMN recipe_ids bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN unsearchable_paths text[] NOT NULL DEFAULT '{}'; -- metadata that no filter looks into
CREATE INDEX dataset_recipes ON dataset USING gin (recipe_ids);

-- Datasets made before there were recipes get one each, as new ones do.
DO $$
DECLARE
    one record;
    made bigint;
BEGIN
    FOR one IN
        SELECT id, project_id, name, creator_id
        FROM dataset
        WHERE deleted_at IS NULL AND metadata #>> '{system,scope}' IS DISTINCT FROM 'system'
        ORDER BY id
    LOOP
        INSERT INTO ontology (project_ids, title, creator_id)
        VALUES (ARRAY[one.project_id], one.name || ' Default Ontology', one.creator_id)
        RETURNING id INTO made;
        INSERT INTO recipe (project_ids, ontology_ids, title, creator_id)
        VALUES (ARRAY[one.project_id], ARRAY[made], one.name || ' Default Recipe', one.creator_id)
        RETURNING id INTO made;
        UPDATE dataset SET recipe_ids = ARRAY[made] WHERE id = one.id;
    END LOOP;
END
$$;
UPDATE dataset SET metadata = metadata #- '{system,recipes}' WHERE metadata #> '{system,recipes}' IS NOT NULL;
