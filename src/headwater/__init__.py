"""Headwater keeps datasets in step with the buckets they come from."""
