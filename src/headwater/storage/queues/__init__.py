"""Queues that clouds put the events of buckets into."""
