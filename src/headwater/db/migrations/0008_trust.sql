-- What the owner of a cloud account needs to let this server act there (whom to trust, the external id), and whether it
-- was seen to work. Ours, beside the metadata that people give.

ALTER TABLE integration ADD COLUMN trust jsonb;
