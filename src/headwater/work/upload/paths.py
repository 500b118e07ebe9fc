"""Where a file may be uploaded to."""

import re

from headwater.catalog import drivers
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import HIDDEN_FOLDER
from headwater.catalog.sync.rules import rules_of
from headwater.errors import BadRequest
from headwater.storage.stores import LARGEST_KEY_BYTES
from headwater.work.checks import TEST_KEY
from headwater.work.selection import Selection
from headwater.work.workplace import Workplace

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # the latter: what is no Unicode text

# What Windows takes for a device or a drive, wherever it stands: such a file could be downloaded there by nobody.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.[^/]*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:", re.IGNORECASE)


def checked_path(path: str) -> str:
    """An item's path as it is kept: one slash in front. Raises BadRequest for what no store could hold, and for what
    some machines would read as another path.
    """
    path = "/" + path.lstrip("/")
    segments = path[1:].split("/")
    if _CONTROL.search(path) or "" in segments or "." in segments or ".." in segments:
        raise BadRequest(
            f"{path[:200]!r} cannot be an item's path. A path is /folder/name.ext, without empty, '.' or '..' parts "
            "and without control characters."
        )
    if "\\" in path or _DRIVE.fullmatch(segments[0]):
        raise BadRequest(
            f"{path[:200]!r} cannot be an item's path: on some machines it names another folder. Write "
            "/folder/name.ext, with slashes and without backslashes or drives."
        )
    if device := next((part for part in segments if _DEVICE.fullmatch(part)), None):
        raise BadRequest(
            f"{path[:200]!r} cannot be an item's path: {device!r} is the name of a device on Windows, where nobody "
            "could download it. Choose another name."
        )
    if len(path.encode()) - 1 > LARGEST_KEY_BYTES:
        raise BadRequest(f"The path is {len(path.encode()) - 1} bytes long; buckets take {LARGEST_KEY_BYTES}.")
    if path.startswith((f"{HIDDEN_FOLDER}/thumbnails/", f"/{TEST_KEY}")):
        raise BadRequest(f"{path[:200]!r} is where Headwater keeps its own files. Choose another folder.")
    return path


class Door:
    """Lets paths into a dataset; made once for many. Raises BadRequest for a dataset that takes no files."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._selection = Selection.of(rules_of(dataset.sync_rules))

    def check(self, path: str) -> None:
        """Raises BadRequest for a path that the next sync would take for gone; it is one of `checked_path`."""
        if not self._selection.keeps(path):
            name = self._dataset.name
            raise BadRequest(
                f"{path} is left out by the sync rules of dataset {name!r}: the next sync would take it for gone. "
                f"Choose another path, or change the rules: headwater sync-rules {name}"
            )


async def check_writable(place: Workplace, dataset: Dataset) -> Door:
    """Raises BadRequest where nothing may be uploaded."""
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    if dataset.driver_id is not None and dataset.origin is not None:
        raise BadRequest(
            f"Dataset {dataset.name!r} is a {dataset.origin['kind']} of datasets in a bucket: a file would be written "
            "into that bucket, where a sync of the originals finds it. Upload to a dataset of the bucket, and clone "
            "again."
        )
    if dataset.driver_id is not None:
        async with place.pool.connection() as conn:
            driver = await drivers.get_driver(conn, dataset.driver_id)
        if driver.read_only:
            raise BadRequest(
                f"Driver {driver.name!r} of dataset {dataset.name!r} only reads its bucket, so nothing can be "
                "uploaded. Upload to another dataset, or put the file into the bucket and sync."
            )
    return Door(dataset)
