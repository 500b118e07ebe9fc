-- Metadata in bulk, and metadata from files beside the objects.

-- A JSON object with a patch put over it, deeply: null removes a key, a list replaces a list. As wire/items.merged.
CREATE FUNCTION jsonb_deep_merge(before jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT coalesce(
            jsonb_object_agg(
                key,
                CASE jsonb_typeof(new.value)
                    WHEN 'object' THEN jsonb_deep_merge(old.value, new.value)
                    ELSE coalesce(new.value, old.value)
                END
            ) FILTER (WHERE jsonb_typeof(new.value) IS DISTINCT FROM 'null'),
            '{}'
        )
        FROM jsonb_each(CASE WHEN jsonb_typeof(before) = 'object' THEN before ELSE '{}' END) AS old (key, value)
        FULL JOIN jsonb_each(patch) AS new (key, value) USING (key)
    );
END
$$;

-- A JSON object without what was once given to it, deeply: a value that has changed since stays.
CREATE FUNCTION jsonb_take_back(held jsonb, given jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(key, rest), '{}')
        FROM (
            SELECT key, CASE
                WHEN was.value IS NULL THEN now.value
                WHEN now.value = was.value THEN NULL
                WHEN jsonb_typeof(now.value) = 'object' AND jsonb_typeof(was.value) = 'object'
                THEN nullif(jsonb_take_back(now.value, was.value), '{}')
                ELSE now.value
            END AS rest
            FROM jsonb_each(held) AS now (key, value)
            LEFT JOIN jsonb_each(given) AS was (key, value) USING (key)
        ) AS kept
        WHERE rest IS NOT NULL
    );
END
$$;

ALTER TABLE item
    ADD COLUMN sidecar_content jsonb, -- of a sidecar: the metadata in it, as it was read last
    ADD COLUMN sidecar_given jsonb; -- of an item: what its sidecar gave it last, which is in its user metadata
