"""Items and annotations as documents, random filters over them, and the same filters in plain Python.

The matcher follows docs/reference/queries.md, not the code: it walks JSON and compares.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from headwater.catalog.folders import ROOT, folder_of, parent_of
from headwater.ids import to_wire

DATASET = 7
OTHER_DATASET = 8


# Items, as documents of the wire, and the rows they are.

Document = dict[str, Any]
CREATED = datetime(2024, 3, 1, 12, 0, 0, 123456, UTC)
ANNOTATIONS, ITEM = "#annotations", "#item"  # of an item, of an annotation: what a join leads to
SHOWN_IN_ALL: Document = {"encoding": "7bit", "refs": [], "annotationStatus": []}


def document(path: str, number: int = 1, *, created: datetime = CREATED, **more: Any) -> Document:
    """`more`: user, system, size, width, mimetype, creator, description, hidden, missing, annotations."""
    annotations: list[Document] = more.get("annotations") or []
    system = {
        "size": more.get("size", 100),
        "mimetype": more.get("mimetype"),
        "width": more.get("width"),
        "missing": more.get("missing", False),
        "missingSince": CREATED if more.get("missing") else None,
        "originalname": path.rpartition("/")[2],
        "etag": "e" + str(number),
        **SHOWN_IN_ALL,
    }
    system = {key: value for key, value in system.items() if value is not None}
    metadata: Document = {"system": {**system, **(more.get("system") or {})}}
    if more.get("user"):
        metadata["user"] = more["user"]
    found: Document = {
        "id": to_wire(number),
        "datasetId": to_wire(DATASET),
        "type": "file",
        "filename": path,
        "name": path.rpartition("/")[2],
        "dir": folder_of(path),
        "hidden": more.get("hidden", False),
        "annotated": bool(annotations),
        "annotationsCount": len(annotations),
        "label": [annotation["label"] for annotation in annotations] or None,
        ANNOTATIONS: annotations,
        "createdAt": created,
        "updatedAt": created,
        "creator": more.get("creator"),
        "description": more.get("description"),
        "metadata": metadata,
    }
    item = {key: value for key, value in found.items() if value is not None}
    for annotation in annotations:
        annotation |= {"itemId": item["id"], ITEM: item}
    return item


def annotation(number: int, *, created: datetime = CREATED, **more: Any) -> Document:
    """`more`: type, label, creator, source, description, attributes, coordinates, user, system."""
    metadata: Document = {"system": more.get("system") or {}}
    if more.get("user"):
        metadata["user"] = more["user"]
    found: Document = {
        "id": to_wire(number),
        "annotationId": to_wire(number),
        "datasetId": to_wire(DATASET),
        "type": more.get("type", "box"),
        "label": more.get("label", "cat"),
        "createdAt": created,
        "updatedAt": created,
        "creator": more.get("creator", "ann@x.org"),
        "updatedBy": "bob@x.org",
        "source": more.get("source"),
        "description": more.get("description"),
        "attributes": more.get("attributes"),
        "coordinates": more.get("coordinates"),
        "metadata": metadata,
    }
    return {key: value for key, value in found.items() if value is not None}


def directory(path: str, number: int) -> Document:
    return {
        "id": to_wire(number),
        "datasetId": to_wire(DATASET),
        "type": "dir",
        "filename": path,
        "name": path.rpartition("/")[2],
        "dir": parent_of(path),
        "hidden": path == "/.dataloop" or path.startswith("/.dataloop/"),
        "annotated": False,
        "annotationsCount": 0,
        ANNOTATIONS: [],
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "metadata": {"system": {}},
    }


def insert(conn: psycopg.Connection, documents: list[Document], *datasets: int) -> list[Document]:
    """Into each dataset. The folders of the last come back."""
    folders: dict[str, int] = {ROOT: 1_000_000}
    for item in documents:
        path: str | None = item["dir"]
        while path is not None and path not in folders:
            folders[path] = 1_000_000 + len(folders)
            path = parent_of(path)
    accounts = dict(conn.execute("SELECT email, id FROM account").fetchall())
    for dataset in datasets or (DATASET, OTHER_DATASET):
        conn.cursor().executemany(
            "INSERT INTO folder (dataset_id, id, path, parent_id, created_at) VALUES (%s, %s, %s, %s, %s)",
            [(dataset, number, path, folders.get(parent_of(path) or ""), CREATED) for path, number in folders.items()],
        )
        conn.cursor().executemany(
            """
            INSERT INTO item (dataset_id, id, folder_id, size_bytes, created_at, updated_at, missing_since,
                creator_id, width_px, hidden, path, etag, mime_type, description,
                user_metadata, system_metadata, annotations_count, etl_state)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1)
            """,
            [_row(item, dataset, folders, accounts) for item in documents],
        )
        conn.cursor().executemany(
            """
            INSERT INTO annotation (dataset_id, id, item_id, type, label, created_at, updated_at, creator_id,
                updated_by_id, source, description, attributes, coordinates, user_metadata, system_metadata)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [_annotation_row(found, dataset, accounts) for item in documents for found in item[ANNOTATIONS]],
        )
    return [directory(path, number) for path, number in folders.items() if path != ROOT]


def _row(item: Document, dataset: int, folders: dict[str, int], accounts: dict[str, int]) -> tuple[Any, ...]:
    system = dict(item["metadata"]["system"])
    size, mimetype = system.pop("size"), system.pop("mimetype", None)
    width, missing_since = system.pop("width", None), system.pop("missingSince", None)
    del system["missing"]
    system = {key: value for key, value in system.items() if SHOWN_IN_ALL.get(key) != value}
    etag, original = system.pop("etag"), system.pop("originalname")
    if original != item["name"]:
        system["originalname"] = original
    user = item["metadata"].get("user")
    return (
        dataset,
        int(item["id"], 16),
        folders[item["dir"]],
        size,
        item["createdAt"],
        item["updatedAt"],
        missing_since,
        accounts.get(item.get("creator", "")),
        width,
        item["hidden"],
        item["filename"],
        etag,
        mimetype,
        item.get("description"),
        Jsonb(user) if user else None,
        Jsonb(system) if system else None,
        item["annotationsCount"],
    )


def _annotation_row(found: Document, dataset: int, accounts: dict[str, int]) -> tuple[Any, ...]:
    return (
        dataset,
        int(found["id"], 16),
        int(found["itemId"], 16),
        found["type"],
        found["label"],
        found["createdAt"],
        found["updatedAt"],
        accounts[found["creator"]],
        accounts[found["updatedBy"]],
        found.get("source"),
        found.get("description"),
        Jsonb(found["attributes"]) if "attributes" in found else None,
        Jsonb(found["coordinates"]) if "coordinates" in found else None,
        Jsonb(found["metadata"].get("user", {})),
        Jsonb(found["metadata"]["system"]),
    )


# The same in Python.


def matches_query(query: Document, row: Any) -> bool:
    """The filter of a body, with its join and its sets."""
    return matches(query.get("filter") or {}, row) and all(
        matches({key: query[key]}, row) for key in ("join", "intersect", "except") if key in query
    )


def joined(join: Document, row: Any) -> bool:
    conditions = join.get("filter") or {}
    others = row[ANNOTATIONS] if ANNOTATIONS in row else [row[ITEM]]
    return says_nothing(conditions) or any(matches(conditions, other) for other in others)


def says_nothing(conditions: Document) -> bool:
    return all(key == "$and" and all(map(says_nothing, value)) for key, value in conditions.items())


def matches(conditions: Document, item: Any) -> bool:
    for key, value in conditions.items():
        match key:
            case "$and":
                holds = all(matches(part, item) for part in value)
            case "$or":
                holds = any(matches(part, item) for part in value)
            case "$not":
                holds = not matches(value, item)
            case "join":
                holds = joined(value, item)
            case "intersect":
                holds = matches_query(value["query"], item)
            case "except":
                holds = not matches_query(value["query"], item)
            case _:
                holds = field_matches(key, value, item)
        if not holds:
            return False
    return True


def field_matches(name: str, value: Any, item: Any) -> bool:
    if not isinstance(value, dict):
        return equals(name, value, item)
    if not any(key.startswith("$") for key in value):
        if is_in_document(name) and asks_for_something(value):
            return any(matches_inside(value, element) for element in elements_at(item, name))
        return all(field_matches(f"{name}.{key}", part, item) for key, part in value.items())
    return all(operator_holds(name, operator, operand, item) for operator, operand in value.items())


def is_in_document(name: str) -> bool:
    return re.match(r"metadata\.(user|system)\.|attributes\.|coordinates(\.|$)", name) is not None


def matches_inside(value: Document, element: Any) -> bool:
    """All that is nested in one object, of one object."""
    for key, part in value.items():
        if isinstance(part, dict) and not any(name.startswith("$") for name in part):
            holds = any(matches_inside(part, inner) for inner in elements_at(element, key))
        else:
            holds = field_matches(key, part, element)
        if not holds:
            return False
    return True


def asks_for_something(value: Any) -> bool:
    """No condition in it holds where nothing is."""
    if not isinstance(value, dict):
        return value is not None
    for key, part in value.items():
        match key:
            case "$ne" | "$nin" | "$not" | "$or":
                asks = False
            case "$eq":
                asks = part is not None
            case "$in":
                asks = None not in part
            case "$exists":
                asks = part
            case "$and":
                asks = all(map(asks_for_something, part))
            case "$match" if isinstance(part, dict):
                asks = True
            case _ if key in ("$gt", "$gte", "$lt", "$lte"):
                asks = True
            case _:
                asks = asks_for_something(part)
        if not asks:
            return False
    return True


def operator_holds(name: str, operator: str, operand: Any, item: Any) -> bool:  # noqa: PLR0911
    match operator:
        case "$eq":
            return equals(name, operand, item)
        case "$ne":
            return not equals(name, operand, item)
        case "$in":
            return any(equals(name, element, item) for element in operand)
        case "$nin":
            return not any(equals(name, element, item) for element in operand)
        case "$exists":
            return bool(values_at(item, name.split("."))) == operand
        case "$not":
            return not field_matches(name, operand, item)
        case "$and":
            return all(field_matches(name, part, item) for part in operand)
        case "$or":
            return any(field_matches(name, part, item) for part in operand)
        case "$match":
            return any(matches(operand, element) for element in elements_at(item, name))
        case _:
            return any(ordered(operator, element, meant(name, operand)) for element in elements_at(item, name))


def attributes_at(found: Document, keys: list[str]) -> list[Any]:
    """What is at a name of the attributes, or the list of all their values."""
    given, newer = found.get("attributes"), found["metadata"]["system"].get("attributes")
    if keys:
        return values_at(given if isinstance(given, dict) else newer, keys)
    every = list(given.values()) if isinstance(given, dict) else list(given or [])
    every += list(newer.values()) if isinstance(newer, dict) else []
    return [every] if every else []


def values_at(value: Any, keys: list[str]) -> list[Any]:
    if keys[:1] == ["attributes"] and isinstance(value, dict) and "annotationId" in value:
        return attributes_at(value, keys[1:])
    if not keys:
        return [value]
    places = value if isinstance(value, list) else [value]
    return [
        deeper
        for place in places
        if isinstance(place, dict) and keys[0] in place
        for deeper in values_at(place[keys[0]], keys[1:])
    ]


def elements_at(item: Any, name: str) -> list[Any]:
    elements = values_at(item, name.split("."))
    for _ in range(2):
        elements = [inner for element in elements for inner in (element if isinstance(element, list) else [element])]
    return elements


def equals(name: str, operand: Any, item: Any) -> bool:
    values = values_at(item, name.split("."))
    elements = elements_at(item, name)
    is_folder = name == "dir" and isinstance(operand, str) and operand.endswith("/")
    if is_folder and operand != "/" and equals(name, operand.rstrip("/") or "/", item):
        return True
    if operand is None:
        return not values or any(element is None for element in elements)
    if isinstance(operand, list):
        return name != "label" and any(same(value, operand) for value in values)
    if isinstance(operand, str) and "*" in operand:
        return any(wildcard(name, operand, element) for element in elements)
    return any(same(element, meant(name, operand)) for element in elements)


def meant(name: str, operand: Any) -> Any:
    """Of the fields that are numbers, a number in quotes counts, too."""
    is_number = name in ("metadata.system.size", "metadata.system.width", "annotationsCount")
    is_quoted = isinstance(operand, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", operand, re.ASCII)
    return Decimal(operand) if is_number and is_quoted else operand


def exact(number: Any) -> Decimal:
    return number if isinstance(number, Decimal) else Decimal(repr(number))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, datetime):
        return isinstance(right, str) and milliseconds(left) == moment(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float | Decimal):
        return exact(left) == exact(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


def ordered(operator: str, left: Any, right: Any) -> bool:
    pair: tuple[Any, Any]
    if isinstance(left, datetime) and isinstance(right, str):
        pair = (milliseconds(left), moment(right))
    elif isinstance(left, str) and isinstance(right, str):
        pair = (left.encode(), right.encode())
    elif all(isinstance(side, int | float | Decimal) and not isinstance(side, bool) for side in (left, right)):
        pair = (exact(left), exact(right))
    else:
        return False
    smaller, larger = pair[0] < pair[1], pair[0] > pair[1]
    return {"$gt": larger, "$lt": smaller, "$gte": not smaller, "$lte": not larger}[operator]


def milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def moment(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def wildcard(name: str, pattern: str, value: Any) -> bool:
    if isinstance(value, datetime):
        return glob(pattern, milliseconds(value).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    if not isinstance(value, str):
        return False
    if name not in ("filename", "dir"):
        return glob(pattern, value)
    below = re.search(r"/\*\*+$" if name == "filename" else r"/\*+$", pattern)
    if below and path_glob(pattern[: below.start()], value):
        return True
    return path_glob(pattern, value)


@cache
def glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return text[:1] == pattern[0] and glob(pattern[1:], text[1:])


@cache
def path_glob(pattern: str, text: str, *, begins: bool = True) -> bool:
    if not pattern:
        return not text
    if re.match(r"/\*\*+/", pattern) and text.startswith("/"):
        after = pattern[1:].lstrip("*")[1:]
        below = [at + 1 for at, character in enumerate(text) if character == "/"]
        return any(path_glob(after, text[at:], begins=False) for at in below)
    if pattern[0] != "*":
        return text[:1] == pattern[0] and path_glob(pattern[1:], text[1:], begins=False)
    rest = pattern.lstrip("*")
    crosses = begins or not rest or len(pattern) - len(rest) > 1
    longest = len(text if crosses else text.partition("/")[0])
    return any(path_glob(rest, text[at:], begins=False) for at in range(longest + 1))


# Random ones.

NAMES = ["a", "b", "a b", "ab", "%", "_", "a%b", "a_b", "\\", "a\\b", "a+b", "(a)", "é", "😀", "a*b", "x.jpg"]
NAMES += ["y.jpg", "noext", "", "\ud7ff", "\U0010ffff", "Z"]
KEYS = ["k", "n", "a b", "%", "?", '"', "$x", "\\", "é", "0"]
HARMLESS = st.characters(codec="utf-8", exclude_characters="\0")
texts = st.sampled_from(["", "a", "A", "ab", "b", "é", "😀", "%", "_", "\\", "1", "true", "a*b"])
numbers = st.sampled_from([0, 1, -1, 5, 5.0, 5.5, 0.1, 100, 2**31, 2**53 + 1, 2**63, 10**40, 1e300, -1e-300])
scalars = st.one_of(texts, numbers, st.booleans(), st.none(), st.text(HARMLESS, max_size=3))
keys = st.sampled_from(KEYS)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
times = st.integers(0, 10**13).map(lambda n: CREATED + timedelta(microseconds=n - n % 1000 + n % 2 * 456))
mimetypes = st.sampled_from([None, "image/jpeg", "image/png", "video/mp4", "é"])


labels = st.sampled_from(["cat", "dog", "é", "cat.tail", ""])
types = st.sampled_from(["box", "point", "segment", "class"])


@st.composite
def annotations(draw: st.DrawFn, number: int) -> Document:
    return annotation(
        number,
        created=draw(times),
        type=draw(types),
        label=draw(labels),
        creator=draw(st.sampled_from(["ann@x.org", "bob@x.org"])),
        source=draw(st.sampled_from([None, "sdk", "é"])),
        description=draw(st.none() | texts),
        attributes=draw(st.none() | st.lists(texts, max_size=2) | st.dictionaries(keys, json_values, max_size=2)),
        coordinates=draw(st.sampled_from([None, [{"x": 1, "y": 2}, {"x": 5, "y": 1}], [[{"x": 1.5}]], "text"])),
        user=draw(st.none() | st.dictionaries(keys, json_values, max_size=2)),
        system=draw(
            st.none()
            | st.dictionaries(keys, json_values, max_size=2)
            | st.fixed_dictionaries({"attributes": st.dictionaries(keys, json_values, max_size=2)})
        ),
    )


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    """Items, some with annotations."""
    new_ids = iter(range(1, 1_000))
    return [
        document(
            path,
            number,
            created=draw(times),
            size=draw(st.sampled_from([0, 5, 100, 2**31, 2**63 - 1])),
            width=draw(st.sampled_from([None, 1, 5, 100])),
            mimetype=draw(mimetypes),
            hidden=draw(st.booleans()),
            missing=draw(st.booleans()),
            creator=draw(st.sampled_from([None, "ann@x.org", "bob@x.org"])),
            description=draw(st.none() | texts),
            user=draw(st.none() | st.dictionaries(keys, json_values, max_size=3)),
            system=draw(st.none() | st.dictionaries(keys, json_values, max_size=2)),
            annotations=[draw(annotations(next(new_ids))) for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3])))],
        )
        for number, path in enumerate(draw(st.lists(paths, unique=True, min_size=1, max_size=6)), 1)
    ]


stars = st.sampled_from(["*", "**", "/*", "/**", "/**/", "*/", "/", "***"])
text_patterns = st.lists(texts | st.just("*") | st.sampled_from(["image", "/", "@x.org"]), max_size=4).map("".join)
path_patterns = paths | st.lists(st.sampled_from(NAMES) | stars, min_size=1, max_size=6).map("".join)
path_patterns = path_patterns | path_patterns.map(lambda pattern: "/" + pattern)
ids = st.sampled_from([0, 1, 2, 3, 4, 2**63 - 1, 2**63, 2**96 - 1]).map(to_wire)
moments = times.map(lambda time: time.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
time_patterns = moments | moments.map(lambda text: text[:8] + "*") | st.just("2024-*T*Z")
documents_at = st.builds(
    lambda prefix, path: ".".join([prefix, *path]),
    st.sampled_from(["metadata.user", "metadata.system"]),
    st.lists(keys, min_size=1, max_size=2),
)


def _compared(names: st.SearchStrategy[str], equal: Any, order: Any = None) -> st.SearchStrategy[Document]:
    """`order`: what it is larger or smaller than; None for what has no order."""
    operators = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), equal),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(equal, max_size=3)),
        st.nothing() if order is None else st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), order),
        st.tuples(st.just("$exists"), st.booleans()),
    ).map(lambda pair: dict([pair]))
    plain = equal.map(lambda value: {"$eq": value} if isinstance(value, dict) else value)
    values = st.one_of(plain, operators, operators, operators.map(lambda value: {"$not": value}))
    return st.tuples(names, values).map(lambda pair: dict([pair]))


# Of the types that a column can have; others are refused.
some_text = st.none() | texts | st.text(HARMLESS, max_size=3)
some_number = st.none() | numbers | st.sampled_from(["0", "5", "-1.5", "100"])
some_truth = st.none() | st.booleans()

file_conditions = st.one_of(
    _compared(st.sampled_from(["filename", "dir"]), path_patterns | some_text, path_patterns | some_text),
    _compared(
        st.sampled_from(
            [
                "name",
                "description",
                "creator",
                "type",
                "metadata.system.mimetype",
                "metadata.system.originalname",
                "metadata.system.etag",
            ]
        ),
        text_patterns | st.sampled_from(NAMES) | some_text,
        some_text,
    ),
    _compared(
        st.sampled_from(["metadata.system.size", "metadata.system.width", "annotationsCount"]), some_number, some_number
    ),
    _compared(st.sampled_from(["id", "datasetId"]), ids | st.just("no id"), ids),
    _compared(st.sampled_from(["createdAt", "updatedAt", "metadata.system.missingSince"]), time_patterns, moments),
    _compared(st.sampled_from(["hidden", "annotated", "metadata.system.missing"]), some_truth),
    _compared(st.just("label"), labels | text_patterns | some_text, labels | some_text),
)
document_conditions = _compared(documents_at, json_values | text_patterns, json_values)
element_conditions = st.builds(
    lambda name, parts: {name: {"$match": parts}},
    documents_at,
    _compared(st.sampled_from(["k", "n", "a b", "%"]), json_values | text_patterns, json_values),
)
nested_conditions = st.builds(
    lambda name, first, second: {name: {**first, **second}},
    documents_at,
    _compared(st.sampled_from(["k", "n"]), json_values, json_values),
    _compared(st.sampled_from(["a b", "%"]), json_values, json_values),
)
annotation_conditions = st.one_of(
    _compared(
        st.sampled_from(["label", "type", "source", "description", "creator", "updatedBy"]),
        labels | types | text_patterns | some_text,
        labels | some_text,
    ),
    _compared(st.sampled_from(["id", "annotationId", "itemId", "datasetId"]), ids | st.just("no id"), ids),
    _compared(st.sampled_from(["createdAt", "updatedAt"]), time_patterns, moments),
    _compared(
        st.sampled_from(["attributes", "attributes.k", "coordinates", "coordinates.x", "metadata.user.k"]),
        json_values | text_patterns,
        json_values,
    ),
    _compared(st.just("metadata.system.k"), json_values | text_patterns, json_values),
    st.just({"coordinates": {"x": 1, "y": 2}}) | st.just({"coordinates": {"x": 1, "y": 1}}),
)


def _combined(leaves: st.SearchStrategy[Document], most: int = 4) -> st.SearchStrategy[Document]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=3)),
            st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda part: {"$not": part}, inner),
        ),
        max_leaves=most,
    )


def _with_sets(filters: st.SearchStrategy[Document], others: st.SearchStrategy[Document]) -> Any:
    """Bodies of queries: a filter, perhaps a join, perhaps another query to intersect with or to leave out."""
    joins = st.builds(lambda conditions: {"filter": conditions}, others | st.just({}))
    plain = st.fixed_dictionaries({"filter": filters}, optional={"join": joins})
    inner = st.fixed_dictionaries({}, optional={"filter": filters, "join": joins}).map(lambda query: {"query": query})
    return st.builds(
        lambda query, sets: {**query, **sets},
        plain,
        st.fixed_dictionaries({}, optional={"intersect": inner, "except": inner}),
    )


filters = _combined(file_conditions | document_conditions | element_conditions | nested_conditions)
annotation_filters = _combined(annotation_conditions)
queries = _with_sets(filters, annotation_filters)
annotation_queries = _with_sets(annotation_filters, filters)


def examples(number: int) -> settings:
    return settings(
        max_examples=number * int(os.environ.get("HEADWATER_TEST_MORE", "1")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


SMALL = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 5, "", "a", "ab", "a*", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kn"), inner, max_size=2),
    max_leaves=5,
)
small_documents = st.dictionaries(st.sampled_from("kn"), SMALL, max_size=2)
small_conditions = _compared(st.sampled_from(["k", "n", "k.k", "k.n", "n.k"]), SMALL, SMALL)


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name and name not in ("metadata", "metadata.system"):
        yield name, value
    if isinstance(value, dict):
        for key in value.keys() - {ANNOTATIONS, ITEM}:
            yield from leaves(f"{name}.{key}" if name else key, value[key])
