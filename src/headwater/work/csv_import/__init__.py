"""CSV imports: an item for each row of a CSV file, and a verdict on each row.

`encodings` and `reading` turn bytes into records, `wire/csv_rows.py` records into rows; `requests` takes a file in,
goes on with one that stopped and cleans up, `importing` is the job, `results` keeps the verdicts.
"""

from headwater.work.csv_import.encodings import check_encoding
from headwater.work.csv_import.importing import give_up, import_rows
from headwater.work.csv_import.requests import (
    CLEAN_AT,
    CLEAN_TASK,
    KIND,
    QUEUE,
    TASK,
    NewImport,
    check_separator,
    drop_expired,
    get_import,
    request_import,
    resume_import,
)
from headwater.work.csv_import.results import open_results

__all__ = [
    "CLEAN_AT",
    "CLEAN_TASK",
    "KIND",
    "QUEUE",
    "TASK",
    "NewImport",
    "check_encoding",
    "check_separator",
    "drop_expired",
    "get_import",
    "give_up",
    "import_rows",
    "open_results",
    "request_import",
    "resume_import",
]
