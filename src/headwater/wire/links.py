"""Link files as the SDK writes them (`UrlLink`, `ItemLink`): small JSON files that stand for something elsewhere."""

import json
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any

from headwater.catalog.links import Kind, Link
from headwater.errors import BadRequest, NotFound
from headwater.ids import from_wire
from headwater.wire import times

LARGEST_LINK_BYTES = 64 * 1024
DEFAULT_MIME_TYPE = "image"  # of the SDK, too, where it cannot guess
_SHAPE = (
    'A link is {"type": "link", "shebang": "dataloop", "metadata": {"dltype": "link", "linkInfo": {"type": "url", '
    '"ref": "https://…", "mimetype": "image/jpeg"}}}, or of type "id" with an item\'s id as its ref.'
)
_LONGEST_MIME_TYPE = 255


def parse_link(body: bytes) -> Link | None:
    """None for what is no link file. Raises BadRequest for a broken one; the ref itself is not looked at."""
    if len(body) > LARGEST_LINK_BYTES or b"dataloop" not in body:
        return None
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or given.get("shebang") != "dataloop":
        return None
    metadata = given.get("metadata")
    dltype = metadata.get("dltype") if isinstance(metadata, dict) else None
    if given.get("type") != "link" and dltype != "link":
        return None  # prompts, collections and others have the same shebang
    info = metadata.get("linkInfo") if isinstance(metadata, dict) else None
    if not isinstance(info, dict):
        raise BadRequest(f"The link file has no metadata.linkInfo. {_SHAPE}")
    return _link(info)


def _link(info: dict[str, Any]) -> Link:
    kind, ref = info.get("type"), info.get("ref")
    if kind not in ("url", "id"):
        raise BadRequest(f"The link file's linkInfo.type is neither url nor id. {_SHAPE}")
    if not isinstance(ref, str) or not ref.strip() or "\0" in ref or not ref.isprintable():
        raise BadRequest(f"The link file's linkInfo.ref is not a text that could be a URL or an id. {_SHAPE}")
    checked: Kind = "url" if kind == "url" else "id"
    if checked == "id":
        _check_id("ref", ref)
    dataset_id = _text(info, "datasetId")
    return Link(checked, ref, _text(info, "mimetype"), dataset_id)


def _check_id(name: str, text: str) -> None:
    try:
        from_wire(text)
    except NotFound:
        raise BadRequest(f"The link file's linkInfo.{name} is not an item's id. {_SHAPE}") from None


def _text(info: dict[str, Any], key: str) -> str | None:
    value = info.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_MIME_TYPE or not value.isprintable():
        raise BadRequest(f"The link file's linkInfo.{key} is not a short text. {_SHAPE}")
    return value


def system_metadata(row: dict[str, Any]) -> dict[str, Any]:
    """What `metadata.system` tells of a linked item, from the column `item.link`; its size, once it is known."""
    state: dict[str, Any] = {"state": row.get("state", "waiting")}
    if row.get("reason") is not None:
        state |= {"reason": row["reason"], "message": row.get("message")}
    if row.get("checked_at") is not None:
        state["checkedAt"] = times.to_wire(datetime.fromisoformat(row["checked_at"]))
    told: dict[str, Any] = {"shebang": {"dltype": "link", "linkInfo": link_info(Link.of(row))}, "link": state}
    if row.get("size_bytes") is not None:
        told["size"] = row["size_bytes"]
    return told


def link_info(link: Link) -> dict[str, str]:
    """As files and items have it."""
    info: dict[str, str] = {"type": link.kind, "ref": link.ref}
    if link.mime_type is not None:
        info["mimetype"] = link.mime_type
    if link.dataset_id is not None:
        info["datasetId"] = link.dataset_id
    return info


def link_body(link: Link) -> bytes:
    """The file that the SDK would write; the same link gives the same bytes. Many are made: `json` is slower."""
    info = ", ".join([f'"{name}": {encode_basestring(value)}' for name, value in link_info(link).items()])
    metadata = f'{{"dltype": "link", "linkInfo": {{{info}}}}}'
    return f'{{"type": "link", "shebang": "dataloop", "metadata": {metadata}}}'.encode()
