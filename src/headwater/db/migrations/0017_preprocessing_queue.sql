-- Reading millions of new files takes hours; deletions, checks and commands that people wait for do not queue behind it.

UPDATE service SET queue = 'preprocessing' WHERE name = 'preprocessing' AND project_id IS NULL;
