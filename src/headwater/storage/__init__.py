"""Bytes in buckets; no database."""
