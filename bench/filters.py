"""Random filters over the items of made_items.py: as the SDK sends them, and as DuckDB's SQL over the columns.

Values are drawn from rows, so that common ones are asked for often, as people do; some filters find most items, some
none. What DuckDB says of the same filter over the columns that the items were made of is what we have to say.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from bench.made_items import COLUMNS

_SAMPLE_ROWS = 5_000
_TEXTS = ["split", "site", "camera", "campaign", "customer", "note", "weather", "incident", "relabelled"]
_NUMBERS = ["speed", "score", "frame", "battery", "attempts", "temperature", "objects", "size", "width"]
_FLAGS = ["blurry", "reviewed"]
_SORTS = ["id", "filename", "created", "size", "site", "customer", "speed", "score", "frame", "battery", "captured"]
_FIELDS = {column: field for field, column in COLUMNS.items()}
_DEFAULTS = [{"hidden": False}, {"type": "file"}]
_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition: as the SDK has it, and as SQL over the columns, where NULL is false."""

    condition: dict[str, Any]
    sql: str
    leads_with_star: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    predicates: tuple[Predicate, ...]
    sort: tuple[str, bool]  # column, descending

    @property
    def leads_with_star(self) -> bool:
        return any(predicate.leads_with_star for predicate in self.predicates)

    def body(self, *, page: int = 0, page_size: int = 50) -> dict[str, Any]:
        column, descending = self.sort
        return {
            "filter": {"$and": [*_DEFAULTS, *(predicate.condition for predicate in self.predicates)]},
            "sort": {_FIELDS[column]: "descending" if descending else "ascending"},
            "page": page,
            "pageSize": page_size,
            "resource": "items",
        }

    @property
    def where(self) -> str:
        return " AND ".join(f"coalesce({predicate.sql}, false)" for predicate in self.predicates) or "true"

    @property
    def order(self) -> str:
        column, descending = self.sort
        direction = "DESC" if descending else "ASC"
        return f"{column} {direction} NULLS LAST, id {direction}"


def random_queries(db: duckdb.DuckDBPyConnection, count: int, *, seed: int = 6) -> list[Query]:
    """With one to five predicates each."""
    made = _Maker(db, seed)
    return [made.query() for _ in range(count)]


class _Maker:
    def __init__(self, db: duckdb.DuckDBPyConnection, seed: int) -> None:
        self._random = random.Random(seed)
        found = db.execute(
            f"SELECT * FROM made WHERE hash(id, $seed) % (SELECT count(*) FROM made) < {_SAMPLE_ROWS} ORDER BY id",
            {"seed": seed},
        )
        names = [column[0] for column in found.description or []]
        self._rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        self._anchor: dict[str, Any] | None = None
        self._values = {name: [row[name] for row in self._rows if row[name] is not None] for name in names}
        for name in (name for name, values in self._values.items() if not values):  # of rare fields
            some = db.execute(f"SELECT {name} FROM made WHERE {name} IS NOT NULL ORDER BY hash(id) LIMIT 10")
            self._values[name] = [value for (value,) in some.fetchall()]
        self._kinds: Sequence[tuple[Callable[[], Predicate], int]] = [
            (self._equal, 30),
            (self._compare, 20),
            (self._between, 12),
            (self._among, 10),
            (self._unequal, 8),
            (self._present, 8),
            (self._folder, 10),
            (self._time, 8),
            (self._tag, 8),
            (self._mime_type, 8),
            (self._begins, 6),
            (self._ends, 4),
            (self._either, 5),
            (self._unique, 3),
        ]

    def query(self) -> Query:
        """Most ask for what one item has, so that several conditions together find something, too."""
        self._anchor = self._random.choice(self._rows) if self._random.random() < 0.7 else None
        kinds, weights = zip(*self._kinds, strict=True)
        many = self._random.choices([1, 2, 3, 4, 5], weights=[30, 30, 20, 12, 8])[0]
        predicates = tuple(kind() for kind in self._random.choices(kinds, weights=weights, k=many))
        column = self._random.choices(_SORTS, weights=[6, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1])[0]
        return Query(predicates, (column, self._random.random() < 0.5))

    def _value(self, column: str) -> Any:
        if self._anchor is not None and (value := self._anchor[column]) is not None and self._random.random() < 0.8:
            return value
        return self._random.choice(self._values[column])

    def _equal(self) -> Predicate:
        column = self._random.choice([*_TEXTS, *_FLAGS, "battery", "attempts", "objects", "width"])
        value = self._value(column)
        return Predicate({_FIELDS[column]: value}, f"{column} = {_literal(value)}")

    def _unequal(self) -> Predicate:
        column = self._random.choice([*_TEXTS, *_FLAGS])
        value = self._value(column)
        return Predicate({_FIELDS[column]: {"$ne": value}}, f"{column} IS DISTINCT FROM {_literal(value)}")

    def _compare(self) -> Predicate:
        column = self._random.choice(_NUMBERS)
        operator, value = self._random.choice(list(_COMPARISONS)), self._value(column)
        return Predicate({_FIELDS[column]: {operator: value}}, f"{column} {_COMPARISONS[operator]} {_literal(value)}")

    def _between(self) -> Predicate:
        column = self._random.choice(_NUMBERS)
        low, high = sorted([self._value(column), self._value(column)])
        if self._random.random() < 0.3:  # a narrow one
            high = low + abs(low) / 1_000
        return Predicate(
            {_FIELDS[column]: {"$gte": low, "$lt": high}},
            f"{column} >= {_literal(low)} AND {column} < {_literal(high)}",
        )

    def _among(self) -> Predicate:
        column = self._random.choice([*_TEXTS, "battery", "attempts"])
        values = list({self._value(column): None for _ in range(self._random.choice([2, 3, 10, 50]))})
        operator, word = self._random.choice([("$in", "IN"), ("$in", "IN"), ("$nin", "NOT IN")])
        listed = f"{column} {word} ({', '.join(map(_literal, values))})"
        return Predicate(
            {_FIELDS[column]: {operator: values}}, listed if word == "IN" else f"({column} IS NULL OR {listed})"
        )

    def _present(self) -> Predicate:
        column = self._random.choice(["note", "incident", "relabelled", "campaign", "reviewed", "score", "weather"])
        wanted = self._random.random() < 0.7
        return Predicate({_FIELDS[column]: {"$exists": wanted}}, f"{column} IS {'NOT ' if wanted else ''}NULL")

    def _folder(self) -> Predicate:
        folder = self._value("dir")
        for _ in range(self._random.choice([0, 0, 1, 2])):
            folder = folder.rpartition("/")[0]
        if self._random.random() < 0.5:
            return Predicate(
                {"filename": f"{folder}/**"}, f"(filename = {_literal(folder)} OR {_begins('filename', folder + '/')})"
            )
        return Predicate({"dir": f"{folder}/**"}, f"(dir = {_literal(folder)} OR {_begins('dir', folder + '/')})")

    def _time(self) -> Predicate:
        column = self._random.choice(["created", "updated", "captured"])
        low, high = sorted([self._value(column), self._value(column)])
        wire = {"$gte": _time(low), "$lt": _time(high)}
        return Predicate({_FIELDS[column]: wire}, f"{column} >= {_literal(low)} AND {column} < {_literal(high)}")

    def _tag(self) -> Predicate:
        tag = self._random.choice(self._value("tags"))
        return Predicate({_FIELDS["tags"]: tag}, f"list_contains(tags, {_literal(tag)})")

    def _mime_type(self) -> Predicate:
        if self._random.random() < 0.5:
            return Predicate({_FIELDS["mimetype"]: "image/*"}, "starts_with(mimetype, 'image/')")
        value = self._value("mimetype")
        return Predicate({_FIELDS["mimetype"]: value}, f"mimetype = {_literal(value)}")

    def _begins(self) -> Predicate:
        column = self._random.choice(["customer", "note", "campaign", "captured"])
        start = self._value(column)
        start = start[: self._random.randint(4, len(start) - 1)]
        return Predicate({_FIELDS[column]: start + "*"}, _begins(column, start))

    def _ends(self) -> Predicate:
        column = self._random.choice(["filename", "filename", "customer", "note", "external"])
        end = self._value(column)[-self._random.randint(2, 8) :]
        if "/" in end:
            end = end.rpartition("/")[2]
        return Predicate({_FIELDS[column]: f"*{end}"}, f"ends_with({column}, {_literal(end)})", leads_with_star=True)

    def _either(self) -> Predicate:
        parts = [self._equal(), self._compare()]
        return Predicate(
            {"$or": [part.condition for part in parts]}, " OR ".join(f"coalesce({part.sql}, false)" for part in parts)
        )

    def _unique(self) -> Predicate:
        value = self._value("external")
        return Predicate({_FIELDS["external"]: value}, f"external = {_literal(value)}")


def _begins(column: str, start: str) -> str:
    return f"starts_with({column}, {_literal(start)})"


def _time(value: Any) -> str:
    return value.isoformat(timespec="milliseconds") + "Z" if isinstance(value, datetime) else value


def _literal(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{value!r}::DOUBLE"
        case datetime():
            return f"TIMESTAMP '{value.isoformat()}'"
        case _:
            return "'" + str(value).replace("'", "''") + "'"
