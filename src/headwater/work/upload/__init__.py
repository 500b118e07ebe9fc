"""Upload: brings files into a dataset. Whichever way the bytes come, the object is written first, then its row.

`streamed` takes one file through this server, `batches` many small ones; `planned` lets clients write to the bucket
themselves. `landing` makes rows of what lies in the store, for these and for everybody else who put it there.
"""

from headwater.work.upload.landing import Landed, Mode, Outcome, Uploaded, commit_written, land, unused_keys
from headwater.work.upload.paths import check_writable, checked_path
from headwater.work.upload.streamed import Announced, upload_file

__all__ = [
    "Announced",
    "Landed",
    "Mode",
    "Outcome",
    "Uploaded",
    "check_writable",
    "checked_path",
    "commit_written",
    "land",
    "unused_keys",
    "upload_file",
]
