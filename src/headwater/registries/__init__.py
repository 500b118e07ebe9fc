"""Container registries: are the credentials good, which repositories and tags are there."""
