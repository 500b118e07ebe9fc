-- A JSON object with a patch put over it, as before, at the cost of the patch and not of the object's many keys.
CREATE OR REPLACE FUNCTION jsonb_deep_merge(before jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    merged jsonb := CASE WHEN jsonb_typeof(before) = 'object' THEN before ELSE '{}' END;
    name text;
    change jsonb;
BEGIN
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
