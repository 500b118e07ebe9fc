"""Upstream sync: brings a dataset's index in step with its bucket, exactly, resumably, and never by deleting.

`requests` starts a scan; its jobs are `lanes`, which claim key ranges, list them in `batches`, merge each batch in one
transaction with the cursor, and share long ranges by `splitting` them; `ending` gives the verdict on what is missing.
"""

from headwater.work.sync.ending import SETTLE_TASK, settle_items
from headwater.work.sync.lanes import abort_before_it_begins, give_up, run_scan
from headwater.work.sync.requests import KIND, TASK, request_sync, revive_lanes

__all__ = [
    "KIND",
    "SETTLE_TASK",
    "TASK",
    "abort_before_it_begins",
    "give_up",
    "request_sync",
    "revive_lanes",
    "run_scan",
    "settle_items",
]
