"""Bytes in, facts and pictures out; pure."""
