"""The fields that items, folders and annotations can be filtered and sorted by, and the values they compare with.

Nothing outside these tables can be read.

To add one of items: a line in ITEM_FIELDS, one in DIR_FIELDS (NULL for no value), one in docs/reference/queries.md.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, LiteralString

from headwater.errors import BadRequest

Kind = Literal["id", "text", "path", "integer", "timestamp", "boolean", "json"]

DEEPEST = 50  # levels of a filter, a path or a value
_MOST_VALUES = 100_000  # of one list
_LARGEST_INTEGER_BITS = 4_000
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """One SQL expression and how it compares.

    `path`: text whose `*` stops at slashes. `json`: whatever lies at `keys` in the document `sql`. With `within_rows`,
    a condition holds when one of several rows fulfils it: an item has as many labels as annotations.
    """

    sql: LiteralString
    kind: Kind
    sort_sql: LiteralString | None = None  # where ordering by `sql` would be wrong or slow
    within: LiteralString | None = None  # a condition on another table, put in at {}
    within_rows: LiteralString | None = None  # rows of another table, of which one has to be there
    within_one: LiteralString | None = None  # the same when the condition names at most one row of it
    nullable: bool = False
    unique: bool = False  # in one dataset
    folder_itself: bool = False  # `/a/*` means /a too
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldTable:
    base: LiteralString  # what every query of this table asks; needs the parameter dataset_id
    named: Mapping[str, Field]
    documents: Mapping[str, LiteralString] = field(default_factory=dict[str, LiteralString])

    def find(self, name: str) -> Field:
        """Raises BadRequest, naming the fields there are."""
        if known := self.named.get(name):
            return known
        for prefix, document in self.documents.items():
            if name.startswith(prefix + "."):
                keys = tuple(name[len(prefix) + 1 :].split("."))
                if len(keys) > DEEPEST:
                    raise BadRequest(f"The field {name[:80]!r}… is too deep: at most {DEEPEST} levels.")
                return Field(document, "json", nullable=True, keys=keys)
        raise BadRequest(f"There is no field {name[:200]!r} to filter or sort by. {self._known()}")

    def _known(self) -> str:
        documents = ", ".join(f"{prefix}.<path>" for prefix in self.documents)
        return f"Known fields: {', '.join(self.named)}, {documents}."


ITEM_FIELDS = FieldTable(
    base="item.dataset_id = %(dataset_id)s",
    named={
        "id": Field("item.id", "id", unique=True),
        "datasetId": Field("item.dataset_id", "id"),
        "filename": Field("item.path", "path", unique=True),
        "name": Field("split_part(item.path, '/', -1)", "text"),
        "dir": Field(
            "folder.path",
            "path",
            sort_sql="(SELECT folder.path FROM folder"
            " WHERE folder.dataset_id = item.dataset_id AND folder.id = item.folder_id)",
            within="item.folder_id IN (SELECT folder.id FROM folder WHERE folder.dataset_id = %(dataset_id)s AND {})",
            within_one="item.folder_id = (SELECT folder.id FROM folder"
            " WHERE folder.dataset_id = %(dataset_id)s AND {})",
            folder_itself=True,
        ),
        "type": Field("'file'::text", "text"),
        "hidden": Field("(item.hidden OR item.trashed_at IS NOT NULL)", "boolean"),
        "annotated": Field("(item.annotations_count > 0)", "boolean"),
        "annotationsCount": Field("item.annotations_count", "integer"),
        "label": Field(
            "annotation.label",
            "text",
            sort_sql="(SELECT min(annotation.label) FROM annotation"
            " WHERE annotation.dataset_id = item.dataset_id AND annotation.item_id = item.id)",
            within_rows="SELECT FROM annotation"
            " WHERE annotation.dataset_id = %(dataset_id)s AND annotation.item_id = item.id AND {}",
            nullable=True,
        ),
        "createdAt": Field("date_trunc('milliseconds', item.created_at)", "timestamp", "item.created_at"),
        "updatedAt": Field("date_trunc('milliseconds', item.updated_at)", "timestamp", "item.updated_at"),
        "creator": Field(
            'account.email COLLATE "C"',
            "text",
            sort_sql='(SELECT account.email COLLATE "C" FROM account WHERE account.id = item.creator_id)',
            within="item.creator_id IN (SELECT account.id FROM account WHERE {})",
            nullable=True,
        ),
        "description": Field('item.description COLLATE "C"', "text", nullable=True),
        "metadata.user": Field("NULLIF(item.user_metadata, '{}')", "json", nullable=True),
        # Shown as empty lists in items that have none.
        "metadata.system.refs": Field("COALESCE(item.system_metadata -> 'refs', '[]')", "json"),
        "metadata.system.annotationStatus": Field("COALESCE(item.system_metadata -> 'annotationStatus', '[]')", "json"),
        "metadata.system.encoding": Field(
            "COALESCE(item.system_metadata ->> 'encoding', '7bit') COLLATE \"C\"", "text"
        ),
        "metadata.system.size": Field("item.size_bytes", "integer"),
        "metadata.system.mimetype": Field('item.mime_type COLLATE "C"', "text", nullable=True),
        "metadata.system.width": Field("item.width_px", "integer", nullable=True),
        "metadata.system.height": Field("item.height_px", "integer", nullable=True),
        "metadata.system.originalname": Field(
            "COALESCE(item.system_metadata ->> 'originalname', split_part(item.path, '/', -1)) COLLATE \"C\"", "text"
        ),
        "metadata.system.etag": Field("item.etag", "text"),
        "metadata.system.thumbnailId": Field(
            "CASE WHEN item.thumbnail_type IS NOT NULL THEN item.id END", "id", nullable=True
        ),
        "metadata.system.etl.state": Field(
            "(CASE item.etl_state WHEN 0 THEN 'waiting' ELSE item.system_metadata #>> '{etl,state}' END) COLLATE \"C\"",
            "text",
            nullable=True,
        ),
        "metadata.system.missing": Field("(item.missing_since IS NOT NULL)", "boolean"),
        "metadata.system.missingSince": Field(
            "date_trunc('milliseconds', item.missing_since)", "timestamp", nullable=True
        ),
        "metadata.system.trashedAt": Field("date_trunc('milliseconds', item.trashed_at)", "timestamp", nullable=True),
    },
    documents={"metadata.user": "item.user_metadata", "metadata.system": "item.system_metadata"},
)

_NO_TEXT = Field("NULL::text", "text", nullable=True)
_NO_NUMBER = Field("NULL::bigint", "integer", nullable=True)

# What lies below a folder has a path from the first of these to the second; folders of slashes alone have one more.
_BELOW: LiteralString = "(CASE WHEN rtrim(folder.path, '/') = '' THEN folder.path ELSE folder.path || '/' END)"
_BEHIND: LiteralString = (
    "(CASE WHEN rtrim(folder.path, '/') = '' THEN left(folder.path, -1) ELSE folder.path END || '0')"
)
# A folder is shown when somebody made it, or while there is something in it, or in a folder below it.
FOLDER_IS_SHOWN: LiteralString = f"""(
    folder.parent_id IS NULL OR folder.creator_id IS NOT NULL
    OR EXISTS (
        SELECT
        FROM item AS inside
        WHERE inside.dataset_id = folder.dataset_id AND inside.path >= {_BELOW} AND inside.path < {_BEHIND}
            AND inside.trashed_at IS NULL
    )
    OR EXISTS (
        SELECT
        FROM folder AS made
        WHERE made.dataset_id = folder.dataset_id AND made.path >= {_BELOW} AND made.path < {_BEHIND}
            AND made.creator_id IS NOT NULL
    )
)"""

# Folders, which the SDK takes for items of type "dir". The root is none of them.
DIR_FIELDS = FieldTable(
    base="folder.dataset_id = %(dataset_id)s AND folder.parent_id IS NOT NULL AND " + FOLDER_IS_SHOWN,
    named={
        "id": Field("folder.id", "id", unique=True),
        "datasetId": Field("folder.dataset_id", "id"),
        "filename": Field("folder.path", "path", unique=True),
        "name": Field("split_part(folder.path, '/', -1)", "text"),
        "dir": Field(
            "parent.path",
            "path",
            sort_sql="(SELECT parent.path FROM folder AS parent"
            " WHERE parent.dataset_id = folder.dataset_id AND parent.id = folder.parent_id)",
            within="folder.parent_id IN (SELECT parent.id FROM folder AS parent"
            " WHERE parent.dataset_id = %(dataset_id)s AND {})",
            within_one="folder.parent_id = (SELECT parent.id FROM folder AS parent"
            " WHERE parent.dataset_id = %(dataset_id)s AND {})",
            folder_itself=True,
        ),
        "type": Field("'dir'::text", "text"),
        "hidden": Field(
            "(folder.path = '/.dataloop' OR starts_with(folder.path, '/.dataloop/'))",
            "boolean",
        ),
        "annotated": Field("FALSE::boolean", "boolean"),
        "annotationsCount": Field("0::integer", "integer"),
        "label": _NO_TEXT,
        "createdAt": Field("date_trunc('milliseconds', folder.created_at)", "timestamp", "folder.created_at"),
        "updatedAt": Field("date_trunc('milliseconds', folder.created_at)", "timestamp", "folder.created_at"),
        "creator": _NO_TEXT,
        "description": _NO_TEXT,
        "metadata.user": Field("NULL::jsonb", "json", nullable=True),
        "metadata.system.refs": Field("NULL::jsonb", "json", nullable=True),
        "metadata.system.annotationStatus": Field("NULL::jsonb", "json", nullable=True),
        "metadata.system.encoding": _NO_TEXT,
        "metadata.system.size": _NO_NUMBER,
        "metadata.system.mimetype": _NO_TEXT,
        "metadata.system.width": _NO_NUMBER,
        "metadata.system.height": _NO_NUMBER,
        "metadata.system.originalname": _NO_TEXT,
        "metadata.system.etag": _NO_TEXT,
        "metadata.system.thumbnailId": Field("NULL::bigint", "id", nullable=True),
        "metadata.system.etl.state": _NO_TEXT,
        "metadata.system.missing": Field("NULL::boolean", "boolean", nullable=True),
        "metadata.system.missingSince": Field("NULL::timestamptz", "timestamp", nullable=True),
        "metadata.system.trashedAt": Field("NULL::timestamptz", "timestamp", nullable=True),
    },
    documents={"metadata.user": "NULL::jsonb", "metadata.system": "NULL::jsonb"},
)

ANNOTATION_FIELDS = FieldTable(
    base="annotation.dataset_id = %(dataset_id)s",
    named={
        "id": Field("annotation.id", "id", unique=True),
        "annotationId": Field("annotation.id", "id", unique=True),  # as the SDK says it to delete some
        "datasetId": Field("annotation.dataset_id", "id"),
        "itemId": Field("annotation.item_id", "id"),
        "type": Field("annotation.type", "text"),
        "label": Field("annotation.label", "text"),
        "createdAt": Field("date_trunc('milliseconds', annotation.created_at)", "timestamp", "annotation.created_at"),
        "updatedAt": Field("date_trunc('milliseconds', annotation.updated_at)", "timestamp", "annotation.updated_at"),
        "creator": Field(
            'account.email COLLATE "C"',
            "text",
            sort_sql='(SELECT account.email COLLATE "C" FROM account WHERE account.id = annotation.creator_id)',
            within="annotation.creator_id IN (SELECT account.id FROM account WHERE {})",
        ),
        "updatedBy": Field(
            'account.email COLLATE "C"',
            "text",
            sort_sql='(SELECT account.email COLLATE "C" FROM account WHERE account.id = annotation.updated_by_id)',
            within="annotation.updated_by_id IN (SELECT account.id FROM account WHERE {})",
        ),
        "source": Field('annotation.source COLLATE "C"', "text", nullable=True),
        "hash": Field('annotation.hash COLLATE "C"', "text", nullable=True),
        "description": Field('annotation.description COLLATE "C"', "text", nullable=True),
        # All values, of the older kind of attributes, which have no names, and of the newer, which have.
        "attributes": Field(
            """NULLIF(
                CASE jsonb_typeof(annotation.attributes)
                    WHEN 'array' THEN annotation.attributes
                    WHEN 'object' THEN jsonb_path_query_array(annotation.attributes, '$.*')
                    ELSE '[]'
                END || jsonb_path_query_array(annotation.system_metadata, '$.attributes.*'),
                '[]'
            )""",
            "json",
            nullable=True,
        ),
        "coordinates": Field("annotation.coordinates", "json", nullable=True),
        "metadata.user": Field("NULLIF(annotation.user_metadata, '{}')", "json", nullable=True),
    },
    documents={
        "attributes": "CASE jsonb_typeof(annotation.attributes) WHEN 'object' THEN annotation.attributes"
        " ELSE annotation.system_metadata -> 'attributes' END",
        "coordinates": "annotation.coordinates",
        "metadata.user": "annotation.user_metadata",
        "metadata.system": "annotation.system_metadata",
    },
)

# What JSON values may be.


def check_text(text: str) -> None:
    if "\0" in text:
        raise BadRequest(f"The text {text[:80]!r} holds a NUL character, which nothing stored here can hold.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"The text {text[:80]!r} holds half a surrogate pair and is no Unicode.") from None


def check_value(value: Any, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise BadRequest(f"A value of the filter is nested more than {DEEPEST} levels deep.")
    match value:
        case None | bool():
            pass
        case str():
            check_text(value)
        case int():
            if value.bit_length() > _LARGEST_INTEGER_BITS:
                raise BadRequest("A number of the filter has more than 1,000 digits.")
        case float():
            if not math.isfinite(value):
                raise BadRequest(f"{value} is no number that can be compared; leave the condition out.")
        case list() | dict():
            if len(value) > _MOST_VALUES:
                raise BadRequest(f"A list of the filter has {len(value):,} values; at most {_MOST_VALUES:,} go.")
            for element in value:
                check_value(element, depth + 1)
                if isinstance(value, dict):
                    check_value(value[element], depth + 1)
        case _:
            raise BadRequest(f"A value of the filter is a {type(value).__name__}, which JSON has not.")


def checked_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        check_text(key)
    return keys


def list_of(value: Any, operator: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f'"{operator}" compares with a list, such as ["a", "b"], not with {shown(value)}.')
    return value


def truth_of(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f'"exists" is true or false, not {shown(value)}.')
    return value


def shown(value: Any) -> str:
    return repr(value)[:80]


# Values of columns.

CASTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "id": ("{}::bigint", "{}::bigint[]"),
    "text": ("{}::text", "{}::text[]"),
    "path": ("{}::text", "{}::text[]"),
    "integer": ("{}::numeric", "{}::numeric[]"),
    "timestamp": ("{}::timestamptz", "{}::timestamptz[]"),
    "boolean": ("{}::boolean", "{}::boolean[]"),
}


def column_value(  # noqa: PLR0911 - one case a type
    field: Field, name: str, value: Any
) -> object | None:
    """The value as the column's type has it; None if nothing in the column can equal it."""
    match field.kind, value:
        case ("text" | "path", str()) | ("boolean", bool()):
            return value
        case ("integer", bool()):
            return None
        case ("integer", int() | float()):
            return Decimal(repr(value))
        case ("integer", str()) if _is_quoted_number(value):
            return Decimal(value)
        case ("timestamp", str()):
            return _time_of(name, value)
        case ("id", str()):
            number = id_number(value)
            return number if number is not None and number <= LARGEST_ID else None
        case _:
            return None


_TAKEN: dict[Kind, str] = {
    "id": "an id, 24 hexadecimal digits in quotes",
    "text": "text",
    "path": "text",
    "integer": "a number",
    "timestamp": "a time in quotes, such as 2024-01-31T00:00:00.000Z",
    "boolean": "true or false",
}


def type_mismatch(field: Field, value: Any) -> str | None:
    """What the column takes instead, where nothing in it can be of the value's type. Null is of every type."""
    match field.kind, value:
        case ("json", _) | (_, None) | ("boolean", bool()) | ("id" | "text" | "path" | "timestamp", str()):
            return None
        case ("integer", int() | float()) if not isinstance(value, bool):
            return None
        case ("integer", str()) if _is_quoted_number(value):
            return None
        case _:
            return _TAKEN[field.kind]


def _is_quoted_number(text: str) -> bool:
    """The tutorials of the SDK write sizes in quotes."""
    return re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", text, re.ASCII) is not None


def id_number(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"[0-9a-fA-F]{24}", text) else None


def _time_of(name: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name}: {shown(text)} is no time. Write it as 2024-01-31T00:00:00.000Z, or with a wildcard: 2024-01-*."
        ) from None
