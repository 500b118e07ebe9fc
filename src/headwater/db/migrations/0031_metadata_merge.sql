-- A JSON object with a patch put over it, as before; of a small patch the cost is its own, not that of the object's keys.
CREATE OR REPLACE FUNCTION jsonb_deep_merge(before jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    merged jsonb := CASE WHEN jsonb_typeof(before) = 'object' THEN before ELSE '{}' END;
    name text;
    change jsonb;
BEGIN
    IF pg_column_size(patch) > 2000 THEN -- key by key would copy the object as often
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
            FROM jsonb_each(merged) AS old (key, value)
            FULL JOIN jsonb_each(patch) AS new (key, value) USING (key)
        );
    END IF;
    FOR name, change IN SELECT key, value FROM jsonb_each(patch) LOOP
        CASE jsonb_typeof(change)
            WHEN 'null' THEN merged := merged - name;
            WHEN 'object' THEN merged := merged || jsonb_build_object(name, jsonb_deep_merge(merged -> name, change));
            ELSE merged := merged || jsonb_build_object(name, change);
        END CASE;
    END LOOP;
    RETURN merged;
END
$$;
