"""What buckets send when something happened to their objects: one parser for each envelope."""

from headwater.wire.bucket_events.envelopes import parse
from headwater.wire.bucket_events.parsed import Parsed

__all__ = ["Parsed", "parse"]
