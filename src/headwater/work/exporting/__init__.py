"""Exports: a dataset's index as files, which become items of the project's Binaries.

`requests` takes one, `running` is the job: it writes file after file in one of the formats (`documents`: JSON, ZIP,
lines; `parquet`), and what is said of them at the end (`manifests`, `croissant`). `versions` know what has changed
since an earlier export, `dropping` removes what is left.
"""

from headwater.work.exporting.dropping import CLEAN_AT, CLEAN_TASK, drop_all, drop_expired
from headwater.work.exporting.requests import QUEUE, TASK, is_small, request_export
from headwater.work.exporting.running import give_up, run_export

__all__ = [
    "CLEAN_AT",
    "CLEAN_TASK",
    "QUEUE",
    "TASK",
    "drop_all",
    "drop_expired",
    "give_up",
    "is_small",
    "request_export",
    "run_export",
]
