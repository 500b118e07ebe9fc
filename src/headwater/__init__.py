"""Headwater keeps datasets in step with the buckets they come from."""

from importlib.metadata import version

__version__ = version("headwater")
