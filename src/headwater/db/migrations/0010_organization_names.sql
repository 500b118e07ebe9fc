-- A name that is taken would tell one organisation of another. Who sees several with one name says which by id.

ALTER TABLE organization DROP CONSTRAINT organization_name_unique;
