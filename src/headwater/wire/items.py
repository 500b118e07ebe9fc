"""Items as the SDK sends and reads them. Every key is always there: the SDK sends back as null what was left out."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from headwater.catalog.bulk_metadata import LARGEST_BYTES
from headwater.catalog.folders import Folder, folder_of, name_of, parent_of
from headwater.catalog.items import ETL_WAITING, Item
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire import links, times

# What we know in columns of our own; a client cannot set it.
_TYPED_KEYS = frozenset(
    [
        "size",
        "mimetype",
        "width",
        "height",
        "thumbnailId",
        "missing",
        "missingSince",
        "trashedAt",
        "etag",
        "etl",
        "link",
    ]
)
_DEEPEST = 100  # levels of metadata; JSON writers and readers give up at a few hundred


class ItemJson(TypedDict):
    id: str
    datasetId: str
    projectId: str
    url: str
    dataset: str
    type: str
    filename: str
    name: str
    dir: str
    hidden: bool
    annotated: bool
    annotationsCount: int
    annotations: str
    thumbnail: str
    stream: str
    creator: str | None
    createdAt: str
    updatedAt: str
    updatedBy: str | None
    description: str | None
    spec: None
    srcItem: None
    metadata: dict[str, Any]


class PageJson(TypedDict):
    totalItemsCount: int
    items: list[ItemJson]
    totalPagesCount: int
    hasNextPage: bool


def page(found: list[ItemJson], *, total: int, page_size: int, has_next: bool) -> PageJson:
    return PageJson(
        totalItemsCount=total,
        items=found,
        totalPagesCount=-(-total // page_size) if page_size else 0,
        hasNextPage=has_next,
    )


def item(found: Item, base: str) -> ItemJson:
    """In a page the user metadata is JSON already: bytes, which `answers.as_json` passes on."""
    number, dataset = to_wire(found.id), to_wire(found.dataset_id)
    url = f"{base}/items/{number}"
    created_at = times.to_wire(found.created_at)
    return {
        "id": number,
        "datasetId": dataset,
        "projectId": to_wire(found.project_id),
        "url": url,
        "dataset": f"{base}/datasets/{dataset}",
        "type": "file",
        "filename": found.path,
        "name": name_of(found.path),
        "dir": folder_of(found.path),
        "hidden": found.hidden or found.trashed_at is not None,
        "annotated": found.annotations_count > 0,
        "annotationsCount": found.annotations_count,
        "annotations": f"{url}/annotations",
        "thumbnail": f"{url}/thumbnail",
        "stream": f"{url}/stream",
        "creator": found.creator,
        "createdAt": created_at,
        "updatedAt": created_at if found.updated_at == found.created_at else times.to_wire(found.updated_at),
        "updatedBy": found.updated_by,
        "description": found.description,
        "spec": None,
        "srcItem": None,
        "metadata": _metadata(found),
    }


def _metadata(found: Item) -> dict[str, Any]:
    """The SDK reads the frame rate of a video beside `user` and `system`."""
    system = system_metadata(found)
    metadata = {"user": found.user_json or found.user_metadata or {}, "system": system}
    if isinstance(system.get("fps"), int | float):
        metadata["fps"] = system["fps"]
    return metadata


def system_metadata(found: Item) -> dict[str, Any]:
    """`metadata.system`, put together from columns and the rest."""
    system: dict[str, Any] = {
        "originalname": name_of(found.path),
        "size": found.size_bytes,
        "encoding": "7bit",
        "mimetype": found.mime_type,
        "annotationStatus": [],
        "refs": [],
        "etag": found.etag,
    }
    system |= found.system_metadata or {}
    if found.link is not None:
        system |= links.system_metadata(found.link)
    if found.etl_state == ETL_WAITING:
        system["etl"] = {"state": "waiting"}
    if found.width_px is not None:
        system |= {"width": found.width_px, "height": found.height_px}
    if found.thumbnail_type is not None:
        system["thumbnailId"] = to_wire(found.id)
    if found.missing_since is not None:
        system |= {"missing": True, "missingSince": times.to_wire(found.missing_since)}
    if found.trashed_at is not None:
        system["trashedAt"] = times.to_wire(found.trashed_at)
    return system


def directory(found: Folder, project_id: int, base: str) -> ItemJson:
    url = f"{base}/items/{to_wire(found.id)}"
    at = times.to_wire(found.created_at)
    return ItemJson(
        id=to_wire(found.id),
        datasetId=to_wire(found.dataset_id),
        projectId=to_wire(project_id),
        url=url,
        dataset=f"{base}/datasets/{to_wire(found.dataset_id)}",
        type="dir",
        filename=found.path,
        name=name_of(found.path),
        dir=parent_of(found.path) or "/",
        hidden=False,
        annotated=False,
        annotationsCount=0,
        annotations=f"{url}/annotations",
        thumbnail=f"{url}/thumbnail",
        stream=f"{url}/stream",
        creator=None,
        createdAt=at,
        updatedAt=at,
        updatedBy=None,
        description=None,
        spec=None,
        srcItem=None,
        metadata={"user": {}, "system": {}},
    )


def merged(before: dict[str, Any], patch: Any) -> dict[str, Any]:
    """A JSON object with a patch put over it, deeply; null removes a key, a list replaces a list."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


@dataclass(frozen=True, slots=True)
class MetadataPatch:
    user: dict[str, Any] | None  # None: nothing is said of it
    system: dict[str, Any]  # without what only we set


def metadata_patch(given: Any) -> MetadataPatch:
    """A change of `metadata`: `{"user": {…}, "system": {…}}`. Raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest('metadata is a JSON object such as {"user": {"camera": 3}}.')
    for key in ("user", "system"):
        if not isinstance(given.get(key), dict | None):
            raise BadRequest(f"metadata.{key} is a JSON object.")
    for key in ("user", "system"):
        check_metadata(given.get(key) or {}, f"metadata.{key}")
    return MetadataPatch(given.get("user"), settable_system(given.get("system") or {}))


def check_metadata(metadata: dict[str, Any], where: str) -> None:
    """Raises BadRequest for what cannot be stored, or not be answered."""
    check_depth(metadata, where)
    try:
        size_bytes = len(json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:  # half a surrogate pair, NaN
        raise BadRequest(f"{where} holds a number or a character that JSON does not know.") from None
    if size_bytes > LARGEST_BYTES:
        raise BadRequest(
            f"{where} is {size_bytes:,} bytes of JSON; {LARGEST_BYTES:,} are the most. Keep large data in a "
            "file of its own, and its path here."
        )


def check_depth(metadata: Any, where: str = "The metadata") -> None:
    """Raises BadRequest for what could be stored, but not be answered."""
    level, depth = [metadata], 0
    while level:
        if depth > _DEEPEST:
            raise BadRequest(f"{where} is nested more than {_DEEPEST} levels deep. Write it flatter.")
        if any(isinstance(text, str) and "\0" in text for value in level for text in _texts(value)):
            raise BadRequest(f"{where} holds a NUL character, which cannot be stored.")
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        depth += 1


def _texts(value: Any) -> Iterable[Any]:
    return value if isinstance(value, dict) else [value]


def settable_system(patch: dict[str, Any]) -> dict[str, Any]:
    """A patch of `metadata.system` without what only we set."""
    return {key: value for key, value in patch.items() if key not in _TYPED_KEYS}
