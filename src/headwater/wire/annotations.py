"""Annotations as the SDK sends and reads them, and the shapes that coordinates of each type have.

What a shape does not need is let through and kept: clients add keys of their own. What the server says (ids, creators,
dates, addresses) is ignored in what they send, so that exported files go in as they are.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, cast

import orjson
from typing_extensions import TypedDict

from headwater.catalog.annotations import Annotation, Content
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire import times
from headwater.wire.items import merged

MOST_AT_ONCE = 1_000  # annotations of one request; the SDK sends 100
LARGEST_BYTES = 16_000_000  # of one annotation, as JSON text
MOST_POINTS = 100_000  # of one annotation's coordinates
_LONGEST_TEXT = 1_000  # characters of a label, a source or a hash
_LONGEST_DESCRIPTION = 100_000
_PNG = "data:image/png;base64,"
_CORNERS = ("front_tl", "front_tr", "front_br", "front_bl", "back_tl", "back_tr", "back_br", "back_bl")
_GIS_TYPES = ("box", "polygon", "polyline", "point")
# orjson writes 254 levels; an answer has some around an annotation.
_AROUND = 8
_DEEPEST = 254 - _AROUND

# What only the server says.
_SERVER_SAYS = frozenset(
    [
        "id",
        "_id",
        "url",
        "creator",
        "createdAt",
        "updatedAt",
        "updatedBy",
        "itemId",
        "item",
        "datasetId",
        "dataset",
        "projectId",
    ]
)
_TEXTS = {"source": _LONGEST_TEXT, "hash": _LONGEST_TEXT, "description": _LONGEST_DESCRIPTION}
_METADATA_PARTS = frozenset(["user", "system"])
# Kept and given back as it came; what else an annotation says of itself belongs into its metadata.
_PASSED_ON = ("labelSuggestions",)


class _WrongError(Exception):
    def __init__(self, place: str, must: str) -> None:
        super().__init__(f"{place}: {must}")
        self.place = place
        self.must = must


# Coordinates: one function a shape, which raises _WrongError with the place.


_NUMBERS = frozenset([int, float])  # true is none
_NUMBERS_OR_NONE = _NUMBERS | {NoneType}


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS


def _is_point(value: Any) -> bool:
    return (
        type(value) is dict
        and type(value.get("x")) in _NUMBERS
        and type(value.get("y")) in _NUMBERS
        and type(value.get("z")) in _NUMBERS_OR_NONE
    )


def _number(value: Any, place: str) -> None:
    if not _is_number(value):
        raise _WrongError(place, "must be a number")


def _object(value: Any, place: str, example: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongError(place, f"must be an object such as {example}")
    return cast("dict[str, Any]", value)


def _list(value: Any, place: str, example: str) -> list[Any]:
    if not isinstance(value, list):
        raise _WrongError(place, f"must be a list such as {example}")
    return cast("list[Any]", value)


def _point(value: Any, place: str) -> None:
    if _is_point(value):
        return
    if type(value) is not dict:
        raise _WrongError(place, 'must be a point such as {"x": 1.5, "y": 2}')
    if not _is_number(value.get("x")):
        raise _WrongError(f"{place}.x", "must be a number")
    if not _is_number(value.get("y")):
        raise _WrongError(f"{place}.y", "must be a number")
    raise _WrongError(f"{place}.z", "must be a number")


def _vector(value: Any, place: str) -> None:
    for axis in ("x", "y", "z"):
        _number(_object(value, place, '{"x": 1, "y": 2, "z": 3}').get(axis), f"{place}.{axis}")


def _box(value: Any, place: str) -> None:
    """Two corners, or four of a turned one, and perhaps an angle."""
    corners = _list(value, place, '[{"x": 1, "y": 2}, {"x": 5, "y": 6}]')
    angles = [number for number in range(2, len(corners)) if _is_number(corners[number])]
    if not 2 <= len(corners) <= 5 or len(angles) > 1:
        raise _WrongError(place, "must be two corners, or four, and may have an angle behind them")
    for number, corner in enumerate(corners):
        if number not in angles:
            _point(corner, f"{place}[{number}]")


def _points(value: Any, place: str) -> None:
    points = _list(value, place, '[{"x": 1, "y": 2}, {"x": 5, "y": 6}]')
    if not points:
        raise _WrongError(place, "must have at least one point")
    if len(points) > MOST_POINTS:
        raise _WrongError(place, f"has {len(points):,} points; {MOST_POINTS:,} are the most. Use a binary mask")
    if not all(map(_is_point, points)):  # places are only written for what is wrong: there are very many points
        for number, point in enumerate(points):
            _point(point, f"{place}[{number}]")


def _rings(value: Any, place: str) -> None:
    """Lists of points: the outline, and perhaps holes or further parts."""
    rings = _list(value, place, '[[{"x": 1, "y": 2}, {"x": 5, "y": 6}]]')
    if not rings:
        raise _WrongError(place, "must have at least one list of points")
    if sum(len(ring) for ring in rings if isinstance(ring, list)) > MOST_POINTS:
        raise _WrongError(place, f"has more than {MOST_POINTS:,} points. Use a binary mask")
    for number, ring in enumerate(rings):
        _points(ring, f"{place}[{number}]")


def _lines(value: Any, place: str) -> None:
    """A list of points, or several."""
    first = _list(value, place, '[{"x": 1, "y": 2, "z": 3}]')[:1]
    (_rings if first and isinstance(first[0], list) else _points)(value, place)


def _ellipse(value: Any, place: str) -> None:
    given = _object(value, place, '{"center": {"x": 1, "y": 2}, "rx": 3, "ry": 4, "angle": 0}')
    _point(given.get("center"), f"{place}.center")
    for name in ("rx", "ry", "angle"):
        _number(given.get(name), f"{place}.{name}")


def _cube(value: Any, place: str) -> None:
    given = _object(value, place, '{"front_tl": {"x": 1, "y": 2}, …}')
    for corner in _CORNERS:
        _point(given.get(corner), f"{place}.{corner}")
    if given.get("angle") is not None:
        _number(given["angle"], f"{place}.angle")


def _cube_3d(value: Any, place: str) -> None:
    given = _object(value, place, '{"position": {"x": 1, "y": 2, "z": 3}, "scale": …, "rotation": …}')
    for name in ("position", "scale", "rotation"):
        _vector(given.get(name), f"{place}.{name}")


def _mask(value: Any, place: str) -> None:
    picture = cast("dict[str, Any]", value).get("data") if isinstance(value, dict) else value
    if not isinstance(picture, str) or not picture.startswith(_PNG):
        raise _WrongError(place, f'must be a PNG picture written as "{_PNG}…"')


def _text(value: Any, place: str) -> None:
    if not isinstance(_object(value, place, '{"text": "hello"}').get("text"), str):
        raise _WrongError(f"{place}.text", "must be a text")


def _free_text(value: Any, place: str) -> None:
    if not isinstance(value, str | dict):
        raise _WrongError(place, "must be a text")


def _pose(value: Any, place: str) -> None:
    given = _object(value, place, '{"templateId": "…", "instanceId": "…"}')
    for name in ("templateId", "instanceId"):
        if not isinstance(given.get(name), str | None):
            raise _WrongError(f"{place}.{name}", "must be a text")


def _some_object(value: Any, place: str) -> None:
    _object(value, place, '{"ref": "…"}')


def _gis(value: Any, place: str) -> None:
    given = _object(value, place, '{"geo_type": "point", "wgs84_geo_coordinates": [8.5, 47.4]}')
    if given.get("geo_type") not in _GIS_TYPES:
        raise _WrongError(f"{place}.geo_type", f"must be one of {', '.join(_GIS_TYPES)}")
    _numbers(given.get("wgs84_geo_coordinates"), f"{place}.wgs84_geo_coordinates")


def _numbers(value: Any, place: str) -> None:
    """Lists of lists of numbers, however deep; places may be points, too."""
    for number, part in enumerate(_list(value, place, "[8.5, 47.4]")):
        if isinstance(part, list):
            _numbers(part, f"{place}[{number}]")
        elif not _is_number(part) and not isinstance(part, dict):
            raise _WrongError(f"{place}[{number}]", "must be a number")


def _note(value: Any, place: str) -> None:
    given = _object(value, place, '{"box": [{"x": 1, "y": 2}, {"x": 5, "y": 6}], "note": {"messages": []}}')
    _box(given.get("box"), f"{place}.box")
    note = _object(given.get("note", {}), f"{place}.note", '{"messages": []}')
    for number, message in enumerate(_list(note.get("messages", []), f"{place}.note.messages", "[]")):
        _object(message, f"{place}.note.messages[{number}]", '{"body": "…"}')


def _nothing(value: Any, place: str) -> None:
    if value not in ([], {}):
        raise _WrongError(place, "must be left out: a class has none")


def _anything(value: Any, place: str) -> None:
    if value is None:
        raise _WrongError(place, "must be given with this type")


# The types of the SDK, and those that only its platform's own tools make.
_SHAPES: dict[str, Callable[[Any, str], None]] = {
    "box": _box,
    "cube": _cube,
    "cube_3d": _cube_3d,
    "class": _nothing,
    "comparison": _anything,
    "ellipse": _ellipse,
    "note": _note,
    "point": _point,
    "segment": _rings,
    "polyline": _rings,
    "pose": _pose,
    "binary": _mask,
    "subtitle": _text,
    "text_mark": _some_object,
    "gis": _gis,
    "ref_semantic_3d": _some_object,
    "polyline_3d": _lines,
    "text": _free_text,
    "ref_image": _some_object,
    "item_description": _text,
    "line": _anything,
    "recording": _anything,
    "semantic_3d": _anything,
    "pdf_text": _anything,
}
TYPES = tuple(_SHAPES)


# Reading.


@dataclass(frozen=True, slots=True)
class Posted:
    content: Content
    sent_id: str | None  # as its file has it; here it gets another one


def parse(text: bytes) -> Any:
    """The JSON of a request. Raises BadRequest: neither NaN nor Infinity is JSON, nor half a surrogate pair."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None


def _text_of(value: Any) -> bytes:
    """As JSON. Raises _WrongError for what cannot be answered."""
    for _ in range(_AROUND):
        value = [value]
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise _WrongError("", _not_written(str(error))) from None


def _not_written(told: str) -> str:
    """What orjson says, for people."""
    if "Integer" in told:
        return "holds a whole number of more than 64 bits. Write it as a text"
    if "surrogate" in told:
        return "holds half a surrogate pair, which is no Unicode"
    return f"is nested more than {_DEEPEST} levels deep. Write it flatter"


def posted(body: Any) -> list[Posted]:
    """New annotations, one or a list of them. Raises BadRequest with the place of what is wrong."""
    if not isinstance(body, list):
        return [_posted(body, "")]
    given = cast("list[Any]", body)
    if len(given) > MOST_AT_ONCE:
        raise BadRequest(f"These are {len(given):,} annotations; {MOST_AT_ONCE:,} go at once. Send them in pieces.")
    is_storable = _are_storable(given)
    return [_posted(one, f"[{number}]", is_storable=is_storable) for number, one in enumerate(given)]


def have_parents(given: Sequence[Posted]) -> bool:
    """Whether a `parentId` may name another one of them."""
    return any("parentId" in one.content.system_metadata for one in given) and any(one.sent_id for one in given)


def with_parents(given: Sequence[Posted], new_ids: Sequence[int]) -> list[Content]:
    """Their contents; a `parentId` that names one of them by the id it was sent with gets the id it has here."""
    names = {one.sent_id: to_wire(new_id) for one, new_id in zip(given, new_ids, strict=True) if one.sent_id}
    return [_with_parent(one.content, names) for one in given]


def _with_parent(content: Content, names: Mapping[str, str]) -> Content:
    parent = content.system_metadata.get("parentId")
    if not isinstance(parent, str) or parent not in names:
        return content
    return content._replace(system_metadata=content.system_metadata | {"parentId": names[parent]})


def _posted(given: Any, where: str, *, is_storable: bool = False) -> Posted:
    try:
        document = _object(given, "", '{"type": "box", "label": "car", "coordinates": …}')
        if not is_storable:
            _check_storable(document)
        content = _content(document)
    except _WrongError as error:
        place = f"{where}{'.' if where and error.place and error.place[0] != '[' else ''}{error.place}"
        raise BadRequest(f"{place or 'The annotation'}: {error.must}.") from None
    sent_id = given.get("id") or given.get("_id")
    return Posted(content, sent_id if isinstance(sent_id, str) else None)


def _content(given: Mapping[str, Any]) -> Content:
    """Of what is known to be storable: shapes are read by recursion."""
    kind = given.get("type")
    if not isinstance(kind, str):
        raise _WrongError("type", 'must be a text such as "box"')
    shape = _SHAPES.get(kind)
    if shape is None:
        raise _WrongError("type", f"{kind[:40]!r} is no type of annotations. Types: {', '.join(TYPES)}")
    label = given.get("label")
    if not isinstance(label, str):
        raise _WrongError("label", "must be a text")
    if len(label) > _LONGEST_TEXT:
        raise _WrongError("label", f"is {len(label):,} characters long; {_LONGEST_TEXT:,} are the most")
    coordinates = given.get("coordinates")
    if coordinates is not None or shape is not _nothing:
        shape(coordinates, "coordinates")
    attributes = given.get("attributes")
    if not isinstance(attributes, dict | list | None):
        raise _WrongError("attributes", "must be an object, a list or null")
    metadata = _object(given.get("metadata") or {}, "metadata", '{"user": {"checked": true}}')
    system = _object(metadata.get("system") or {}, "metadata.system", "{}")
    _frames(system.get("snapshots_"), shape)
    user = metadata.get("user")
    extra = {key: given[key] for key in _PASSED_ON if given.get(key) is not None}
    if more := _others(metadata, _METADATA_PARTS):
        extra["metadata"] = more
    return Content(
        type=kind,
        label=label,
        source=_short(given, "source"),
        hash=_short(given, "hash"),
        description=_short(given, "description"),
        coordinates=coordinates,
        attributes=attributes,
        system_metadata=system,
        user_metadata={} if user is None else user,
        extra=extra or None,
    )


def _others(given: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if known.issuperset(given):
        return {}
    return {key: value for key, value in given.items() if key not in known and value is not None}


def _short(given: Mapping[str, Any], name: str) -> str | None:
    text = given.get(name)
    if not isinstance(text, str | None):
        raise _WrongError(name, "must be a text")
    if text is not None and len(text) > _TEXTS[name]:
        raise _WrongError(name, f"is {len(text):,} characters long; {_TEXTS[name]:,} are the most")
    return text


def _frames(given: Any, shape: Callable[[Any, str], None]) -> None:
    """Where the annotation is in further frames of a video."""
    if given is None:
        return
    place = "metadata.system.snapshots_"
    for number, frame in enumerate(_list(given, place, '[{"frame": 3, "data": …}]')):
        at = f"{place}[{number}]"
        told = _object(frame, at, '{"frame": 3, "data": …}')
        if told.get("frame") is not None:
            _number(told["frame"], f"{at}.frame")
        if told.get("data") is not None:
            _SHAPES.get(str(told.get("type")), shape)(told["data"], f"{at}.data")


def _are_storable(documents: Sequence[Any]) -> bool:
    """Whether all are; False also where only one by one can tell."""
    try:
        _check_storable(documents)
    except _WrongError:
        return False
    return True


def _check_storable(document: Any) -> None:
    """What PostgreSQL can hold and an answer can give. Raises _WrongError."""
    text = _text_of(document)
    if len(text) > LARGEST_BYTES:
        raise _WrongError("", f"is {len(text):,} bytes of JSON; {LARGEST_BYTES:,} are the most")
    if rb"\u0000" in text and _has_nul(document):  # or a backslash that stands before u0000
        raise _WrongError("", "holds a NUL character, which cannot be stored")


def _check_finite(document: Any) -> None:
    """Of what is storable but was not read by `parse`. Raises _WrongError."""
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        raise _WrongError("", "holds NaN or an infinite number, which are no JSON") from None


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in cast("dict[str, Any]", value).items() for part in pair)
    return isinstance(value, list) and any(_has_nul(part) for part in cast("list[Any]", value))


def patched(found: Annotation, body: Any, *, with_system: bool) -> Content:
    """An annotation's content with the SDK's difference put over it: deeply, null removes a key, lists are replaced.

    What only the server says is ignored, and so is system metadata unless `with_system`. Raises BadRequest.
    """
    try:
        patch = _object(body, "", '{"label": "car"}')
        _check_storable(patch)
        before = _document(found)
        after = before | {key: value for key, value in patch.items() if key not in _SERVER_SAYS}
        for key in ("type", "metadata"):
            if after.get(key) is None:
                after[key] = before[key]
        for key in ("coordinates", "attributes"):
            if isinstance(before[key], dict) and isinstance(patch.get(key), dict):
                after[key] = merged(before[key], patch[key])
        if patch.get("coordinates") is not None:
            after["coordinates"] = _both_corners(after["type"], after["coordinates"])
        if after["metadata"] is not before["metadata"]:
            given = _object(after["metadata"], "metadata", '{"user": {"checked": true}}')
            after["metadata"] = _patched_metadata(before["metadata"], given, with_system=with_system)
        _check_storable(after)
        return _content(after)
    except _WrongError as error:
        raise BadRequest(f"{error.place or 'The annotation'}: {error.must}.") from None


def _document(found: Annotation) -> dict[str, Any]:
    extra = dict(found.extra or {})
    return {
        "type": found.type,
        "label": found.label,
        "source": found.source,
        "hash": found.hash,
        "description": found.description,
        "coordinates": found.coordinates,
        "attributes": found.attributes,
        "metadata": {
            **extra.pop("metadata", {}),
            "system": found.system_metadata,
            "user": found.user_metadata,
        },
        **extra,
    }


def _both_corners(kind: Any, coordinates: Any) -> Any:
    """The SDK leaves out what is in a list already: of a box whose corners are the same, one is left."""
    is_one = kind == "box" and isinstance(coordinates, list) and len(cast("list[Any]", coordinates)) == 1
    return coordinates * 2 if is_one else coordinates


def _patched_metadata(before: dict[str, Any], patch: dict[str, Any], *, with_system: bool) -> dict[str, Any]:
    after = before | {key: value for key, value in patch.items() if key != "system"}
    user = patch.get("user")
    if isinstance(user, dict) and isinstance(before["user"], dict):
        after["user"] = merged(before["user"], user)
    if with_system and patch.get("system") is not None:
        after["system"] = merged(before["system"], _object(patch["system"], "metadata.system", "{}"))
    return after


class ChangeJson(TypedDict):
    """What a job keeps of a change of many: a label, and patches of both kinds of metadata."""

    label: str | None
    user: dict[str, Any]
    system: dict[str, Any]


def change(update: Mapping[str, Any], *, system_space: bool) -> ChangeJson:
    """`update` of a query: `{"label": …, "metadata": {"user": {…}}}`. Raises BadRequest, also where it changes nothing.

    What it says of `metadata.system` counts only with `system_space`.
    """
    metadata = update.get("metadata") or {}
    if unknown := update.keys() - {"label", "metadata"}:
        raise BadRequest(f"update: {min(unknown)[:40]!r} of many annotations cannot be set; label and metadata can.")
    if not isinstance(metadata, dict) or metadata.keys() - {"user", "system"}:
        raise BadRequest('update: metadata is an object with the parts user and system, such as {"user": {"a": 1}}.')
    user, system = metadata.get("user") or {}, metadata.get("system") or {}
    label = update.get("label")
    document = {"type": "class", "label": "" if label is None else label, "metadata": metadata}
    try:
        _check_storable(document)
        _check_finite(document)
        _content(document)
        user, system = _object(user, "metadata.user", '{"a": 1}'), _object(system, "metadata.system", '{"a": 1}')
    except _WrongError as error:
        raise BadRequest(f"update: {error.place or 'the change'} {error.must}.") from None
    if not system_space:
        system = {}
    if label is None and not user and not system:
        raise BadRequest(
            "update: it changes nothing. Give a label, or keys of metadata.user; keys of metadata.system need "
            '"systemSpace": true.'
        )
    return ChangeJson(label=label, user=user, system=system)


# Answering.


class AnnotationJson(TypedDict, total=False):
    id: str
    url: str
    datasetId: str
    itemId: str
    item: str
    dataset: str
    type: str
    label: str
    coordinates: Any
    attributes: Any
    metadata: dict[str, Any]
    hash: str | None
    source: str | None
    description: str  # left out where there is none: the SDK would send it back as null with every update
    creator: str
    createdAt: str
    updatedBy: str
    updatedAt: str


class AnnotationPageJson(TypedDict):
    totalItemsCount: int
    items: list[AnnotationJson]
    totalPagesCount: int
    hasNextPage: bool


def annotation(found: Annotation, base: str) -> AnnotationJson:
    """For `answers.as_json`: JSON values that were not read are passed on as the bytes that they are."""
    extra: dict[str, Any] = _read(found.extra) if found.extra else {}
    metadata = {"system": found.system_metadata, "user": found.user_metadata}
    number, dataset_id, item_id = to_wire(found.id), to_wire(found.dataset_id), to_wire(found.item_id)
    created_at = times.to_wire(found.created_at)
    answer: dict[str, Any] = {
        **extra,
        "id": number,
        "url": f"{base}/annotations/{number}",
        "datasetId": dataset_id,
        "itemId": item_id,
        "item": f"{base}/items/{item_id}",
        "dataset": f"{base}/datasets/{dataset_id}",
        "type": found.type,
        "label": found.label,
        "coordinates": [] if found.coordinates is None else found.coordinates,
        "attributes": found.attributes,
        "metadata": {**extra["metadata"], **metadata} if "metadata" in extra else metadata,
        "hash": found.hash,
        "source": found.source,
        "creator": found.creator,
        "createdAt": created_at,
        "updatedBy": found.updated_by,
        "updatedAt": created_at if found.updated_at == found.created_at else times.to_wire(found.updated_at),
    }
    if found.description is not None:
        answer["description"] = found.description
    return cast("AnnotationJson", answer)


def _read(document: Any) -> Any:
    return orjson.loads(document) if isinstance(document, bytes) else document


def page(found: list[AnnotationJson], *, total: int, page_size: int, has_next: bool) -> AnnotationPageJson:
    return AnnotationPageJson(
        totalItemsCount=total,
        items=found,
        totalPagesCount=math.ceil(total / page_size) if page_size else 0,
        hasNextPage=has_next,
    )
