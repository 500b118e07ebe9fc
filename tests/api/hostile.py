"""Bodies of queries that mean no good, as data: each is to be answered with 200 or with a sentence, and to do nothing.

`BODIES` are JSON values, `TEXTS` what no JSON writer would write. Names of what must not be read are in `FORBIDDEN`.
"""

import json
from typing import Any

# Columns, tables, other rows and tricks; none is a field of the language.
FORBIDDEN = (
    "item.id",
    "item.path",
    "item.object_key",
    "item.link",
    "object_key",
    "objectKey",
    "dataset_id",
    "folder_id",
    "creator_id",
    "account.email",
    "account.password_hash",
    "creator.email",
    "secret.sealed",
    "user_metadata",
    "system_metadata",
    "metadata",
    "metadata.system",
    "metadata.",
    "metadata.other.x",
    ".metadata.user.x",
    "Metadata.user.x",
    "etl_state",
    "ctid",
    "xmin",
    "tableoid",
    "item",
    "*",
    "",
    ".",
    "..",
    "__proto__",
    "constructor",
    "id; DROP TABLE item",
    "id) OR (TRUE",
    "id' OR '1'='1",
    'id" OR "1"="1',
    "id -- ",
    "id/**/",
    "%(dataset_id)s",
    "%s",
    "{0}",
    "{}",
    "$1",
    "filename ",
    "FILENAME",
    "stream",
    "url",
    "thumbnail",
    "spec",
    "srcItem",
    "\ud800",
    "a\0b",
    "\u202efilename",
    "💥",
    "x" * 100_000,
)

# Paths into metadata are the users' own: any key may be asked for, and none leads anywhere else.
KEYS = (
    "metadata.user.object_key",
    "metadata.system.object_key",
    "metadata.system.password_hash",
    "metadata.system.__proto__.x",
    "metadata.user.%(dataset_id)s",
    "metadata.user.{}",
    "metadata.user.$",
    "metadata.user.$.a",
    "metadata.user.@",
    'metadata.user."',
    "metadata.user.'",
    "metadata.user.\\",
    "metadata.user.`",
    "metadata.user.[0]",
    "metadata.user.a[*]",
    "metadata.user.a ? (@ > 1)",
    "metadata.user.**",
    "metadata.user..a",
    "metadata.user.",
    "metadata.user.a\0b",
    "metadata.user.\ud800",
    "metadata.user.\u2028",
    "metadata.user." + "a." * 60,
    "metadata.user." + "k" * 100_000,
    "metadata.system.etl.state.x",
    "metadata.system.size.x",
    "metadata.system.shebang.linkInfo.ref",
)

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -0.0,
    1e308,
    10**400,
    "",
    "*",
    "**",
    "'; DROP TABLE item; --",
    "%(dataset_id)s %s {} $1",
    "\\",
    '"',
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "x" * 100_000,
    "*a" * 10,
    "*" * 4_000,
    "a*" * 2_000,
    "(a|b)+" * 600 + "*/*",
    "%" * 1_000 + "*",
    "9" * 3_000,
    "2024-13-45T99:99:99Z",
    "0" * 24,
    "f" * 24,
    [],
    [[]],
    [None],
    ["a", 1, None, {"a": 1}, ["*"]],
    list(range(1_000)),
    {"$gt": {"$gt": 1}},
    {"$not": {"$not": {"$eq": 1}}},
    {"$in": [{"$in": [1]}]},
    {"a": {"$regex": ".*"}},
)

OPERATORS = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists", "$match", "$not", "$and", "$or")
NO_OPERATORS = ("$regex", "$where", "$expr", "$function", "$text", "$glob", "$size", "$", "$$", "$eq\0", "$Eq", "$ne ")

FIELDS = (
    "id",
    "filename",
    "dir",
    "type",
    "hidden",
    "label",
    "createdAt",
    "creator",
    "annotated",
    "annotationsCount",
    "metadata.user",
    "metadata.user.k",
    "metadata.system.size",
    "metadata.system.mimetype",
    "metadata.system.refs",
    "metadata.system.refs.id",
    "attributes",
    "coordinates",
    "itemId",
)

# Of every key of a body.
WRONG_TYPES: tuple[Any, ...] = (
    True,
    0,
    -1,
    1.5,
    10**400,
    "x",
    "",
    [],
    [1],
    ["x"],
    {},
    {"x": 1},
    {"$and": 1},
    [[]],
    None,
)
BODY_KEYS = (
    "filter",
    "sort",
    "page",
    "pageSize",
    "resource",
    "join",
    "references",
    "update",
    "delete",
    "context",
    "systemSpace",
    "intersect",
    "except",
)


def _nested(depth: int, wrap: Any, inner: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def _bodies() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for at, name in enumerate((*FORBIDDEN, *KEYS)):
        shown = f"{name[:40]!a}"
        found[f"field {shown}"] = {"filter": {name: "x"}}
        found[f"exists {shown}"] = {"filter": {"$and": [{name: {"$exists": True}}]}}
        found[f"sort {shown}"] = {"sort": {name: "ascending"}}
        others = (
            {"join": {"filter": {name: {"$ne": 1}}}},
            {"filter": {name: {"a": 1, "b": 2}}},
            {"filter": {"metadata.user.k": {"$match": {name: 1}}}},
        )
        found[f"other {shown}"] = others[at % len(others)]
    for at, value in enumerate(VALUES):
        for field in FIELDS[at % 5 :: 5]:
            found[f"value {at} {field}"] = {"filter": {field: value}}
    given = (None, 1, "a*", [], ["a"], {}, {"k": 1}, [{"$gt": 1}])
    for row, operator in enumerate(OPERATORS):
        for column, field in enumerate(FIELDS):
            at = (row + column) % len(given)
            found[f"{operator} {at} {field}"] = {"filter": {field: {operator: given[at]}}}
    for operator in NO_OPERATORS:
        found[f"no operator {operator!a}"] = {"filter": {"id": {operator: "a"}}}
        found[f"no operator {operator!a} between"] = {"filter": {operator: [{"id": "a"}]}}
        found[f"no operator {operator!a} of a body"] = {operator: [{"id": "a"}]}
    for key in BODY_KEYS:
        for number, value in enumerate(WRONG_TYPES):
            if (key, value) not in (("delete", True), ("update", {})):
                found[f"wrong {number} {key}"] = {"filter": {"id": "0" * 24}, key: value}
    for key in ("on", "filter"):
        for number, value in enumerate(WRONG_TYPES):
            found[f"wrong {number} join.{key}"] = {"join": {key: value}}
            found[f"wrong {number} except.query.{key}"] = {"except": {"query": {key: value, "join": {key: value}}}}
    for key in ("resource", "local", "forigen"):
        found[f"join.on.{key}"] = {"join": {"on": {key: "account"}, "filter": {"label": "cat"}}}
    return found | _deep() | _many()


def _deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for depth in (51, 120, 240):
        found[f"and {depth}"] = {"filter": _nested(depth, lambda inner: {"$and": [inner]}, {"id": "0" * 24})}
        found[f"not {depth}"] = {"filter": _nested(depth, lambda inner: {"$not": inner}, {"id": "0" * 24})}
        found[f"names {depth}"] = {"filter": _nested(depth, lambda inner: {"a": inner}, 1)}
        found[f"value {depth}"] = {"filter": {"metadata.user.k": {"$eq": _nested(depth, lambda inner: [inner], 1)}}}
        found[f"match {depth}"] = {
            "filter": _nested(depth, lambda inner: {"metadata.user.k": {"$match": inner}}, {"k": 1})
        }
        found[f"except {depth}"] = _nested(depth, lambda inner: {"except": {"query": inner}}, {"filter": {}})
        found[f"join {depth}"] = {"filter": _nested(depth, lambda inner: {"join": {"filter": inner}}, {"label": "x"})}
        found[f"update {depth}"] = {
            "filter": {"id": "0" * 24},
            "context": _nested(depth, lambda inner: {"a": inner}, 1),
        }
    return found


def _many() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["many conditions"] = {"filter": {"$or": [{"metadata.user.k": number} for number in range(5_000)]}}
    found["many empty conditions"] = {"filter": {"$and": [{}] * 200_000}}
    found["many joins"] = {"filter": {"$and": [{"join": {"filter": {"label": "cat"}}}] * 300}}
    found["many sorts"] = {"sort": {f"metadata.user.{number}": "ascending" for number in range(1_000)}}
    found["many ids"] = {"filter": {"id": {"$in": [f"{number:024x}" for number in range(300_000)]}}}
    found["many values"] = {"filter": {"metadata.user.k": {"$nin": list(range(1_000_000))}}}
    found["as many values as go"] = {"filter": {"metadata.user.k": {"$in": [str(number) for number in range(99_999)]}}}
    found["many patterns"] = {"filter": {"filename": {"$in": [f"*{number}*" for number in range(2_000)]}}}
    found["many patterns among many values"] = {
        "filter": {"filename": {"$in": [f"*{number}*" for number in range(900)] + [f"/{n}" for n in range(50_000)]}}
    }
    found["many datasets"] = {"context": {"datasets": ["x"] * 300_000}}
    found["last page"] = {"page": 10**9, "pageSize": 1000}
    found["page past all"] = {"page": 10**18}
    found["no page"] = {"pageSize": 0}
    found["long name of a direction"] = {"sort": {"id": "up" * 100_000}}
    found["other dataset"] = {"filter": {"datasetId": {"$ne": "0" * 24}}}
    return found


BODIES: dict[str, Any] = _bodies()

TEXTS: dict[str, bytes] = {
    "no JSON": b'{"filter": ',
    "nothing": b"",
    "a list": b"[]",
    "a text": b'"x"',
    "10,000 lists": b'{"filter": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 objects": b'{"filter": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    "a million lists": b"[" * 1_000_000,
    "NaN": b'{"filter": {"metadata.user.k": NaN}}',
    "Infinity": b'{"filter": {"metadata.user.k": {"$gt": -Infinity}}}',
    "a huge exponent": b'{"filter": {"metadata.user.k": 1e400}}',
    "a number of 100,000 digits": b'{"filter": {"metadata.user.k": ' + b"9" * 100_000 + b"}}",
    "a number of 4,000 digits": b'{"page": ' + b"9" * 4_000 + b"}",
    "a fraction of 100,000 digits": b'{"filter": {"metadata.user.k": 0.' + b"3" * 100_000 + b"}}",
    "no UTF-8": b'{"filter": {"filename": "\xff\xfe"}}',
    "half a surrogate": b'{"filter": {"filename": "\\ud800"}}',
    "half a surrogate as a key": b'{"filter": {"\\ud800": 1}}',
    "a NUL": b'{"filter": {"filename": "\\u0000"}}',
    "a key twice": b'{"filter": {"id": 1}, "filter": {}}',
    "a long text": json.dumps({"filter": {"filename": "x" * 10_000_000}}).encode(),
    "a long pattern": json.dumps({"filter": {"filename": "*x" * 1_000_000}}).encode(),
}
