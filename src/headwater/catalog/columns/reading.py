"""From a filter and a snapshot to the rows that fulfil it: what is asked of which columns, loaded, evaluated."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from heapq import nsmallest
from typing import Any, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.sql import SQL

from headwater.catalog.columns import conditions, evaluating, fences, tables
from headwater.catalog.columns.cache import Columns, Deadline
from headwater.catalog.columns.encoding import (
    Chunk,
    Codes,
    Encoding,
    Integers,
    Numbers,
    Offsets,
    Paths,
    TextBlock,
    Texts,
    absent,
    decode,
    decode_block,
    decode_offsets,
)
from headwater.catalog.columns.evaluating import (
    AllOf,
    Always,
    AnyOf,
    Complement,
    IdTest,
    IntegerTest,
    ItemsTest,
    JsonTest,
    MemberTest,
    Node,
    PathTest,
    Range,
    Truth,
    Values,
)
from headwater.catalog.columns.ordering import Array, Part, part_of, ranked
from headwater.catalog.columns.tables import COLUMNS, DOCUMENTS, IndexState, Segment
from headwater.catalog.columns.touched import MOST_ITEMS, TouchedRows, load_touched
from headwater.catalog.fields import ITEM_FIELDS, LARGEST_ID, Field, FieldTable, column_value, id_number, truth_of
from headwater.catalog.query import (
    And,
    Condition,
    ElementMatch,
    HasAnnotation,
    Not,
    OfItem,
    Or,
    Tree,
    compile_filter,
)
from headwater.catalog.wildcards import ANY, BELOW, SEGMENT, is_pattern, path_parts, text_parts
from headwater.errors import BadRequest

T = TypeVar("T")
_OFFSETS = 0  # among numbers of paths, which begin at 1
_LOADED_AT_ONCE = 32  # segments
_SINGLES = 6  # numbers that are asked for one by one

_FOLDERS = FieldTable("folder.dataset_id = %(dataset_id)s", {"dir": Field("folder.path", "path", folder_itself=True)})
_CREATORS = FieldTable("TRUE", {"creator": Field('account.email COLLATE "C"', "text")})


@dataclass(frozen=True, slots=True)
class Block:
    """Of the texts of a path in one segment: so many bytes of the chunk."""

    path_number: int
    number: int
    begin: int
    size_bytes: int


Piece = int | Block  # the number of a path, for the whole of a chunk, or a part of one


class Missing(Exception):
    def __init__(self, piece: Piece) -> None:
        super().__init__(piece)
        self.piece = piece


class View:
    """One segment, as far as it is loaded."""

    __slots__ = ("_reader", "first_id", "rows", "segment")

    def __init__(self, segment: Segment, reader: "Reader") -> None:
        self.segment, self._reader = segment, reader
        self.first_id, self.rows = segment.first_id, segment.rows

    def chunk(self, path_number: int) -> Chunk:
        return self._reader.part(self.segment, path_number)

    def fenced(self, path_number: int) -> fences.Fenced | None:
        return self._reader.fenced(self, path_number) if self._reader.is_text(path_number) else None

    def block(self, path_number: int, number: int) -> TextBlock:
        return self._reader.block(self, path_number, number)

    def offsets(self) -> Offsets:
        return self._reader.part(self.segment, _OFFSETS)


@dataclass(frozen=True, slots=True)
class Matches:
    """By number of segment, without what was touched."""

    truths: Mapping[int, Truth]
    touched: "Touched | None" = None  # None: their rows have to be asked

    @property
    def true(self) -> int:
        """How many, without what was touched."""
        return sum(int(np.count_nonzero(truth.true)) for truth in self.truths.values())

    @property
    def unknown(self) -> int:
        return sum(int(np.count_nonzero(truth.unknown)) for truth in self.truths.values() if truth.unknown is not None)


@dataclass(frozen=True, slots=True)
class Touched:
    """Ids of items that were touched one by one."""

    true: Sequence[int]
    unknown: Sequence[int]


class Reader:
    """Of one query, in one snapshot."""

    def __init__(self, conn: AsyncConnection[Any], state: IndexState, columns: Columns, deadline: Deadline) -> None:
        self.state = state
        self.uncovered: dict[str, None] = {}  # fields of the query that no column has
        self._conn = conn
        self._columns = columns
        self._deadline = deadline
        self._encodings: dict[int, Encoding] = {path.number: path.encoding for path in state.paths.values()}
        self._nowhere: dict[str, int] = {}  # numbers below 0, of paths without columns that no item in columns has
        self._raw: dict[tuple[int, Piece], bytes] = {}  # loaded, not read yet; by version
        self._held: dict[tuple[int, Piece], Any] = {}  # what this query uses now, be it in the cache or not

    # Loading.

    def part(self, segment: Segment, path_number: int) -> Any:
        """A chunk, or offsets. In a thread. Raises Missing, and QueryTooSlow: each condition asks for a part first."""
        self._deadline.check()
        key = (segment.version, path_number)
        if (held := self._held.get(key)) is not None:
            return held
        found = self._columns.cache.get(key)
        if found is None and path_number != _OFFSETS and path_number not in segment.path_numbers:
            found = self._absent(self._encodings[path_number], segment.rows)  # `_covered` has made sure of it
        elif found is None:
            data = self._raw.pop(key, None)
            if data is None:
                raise Missing(path_number)
            if path_number == _OFFSETS:
                found = decode_offsets(data, segment.rows)
            else:
                found = decode(self._encodings[path_number], data, segment.rows)
            # The paths of all items may be more than all there is room for, and would drive everything else out.
            size_bytes = found.nbytes * len(self.state.segments) if isinstance(found, Paths | Texts) else 0
            if size_bytes <= self._columns.most_bytes // 2:
                self._columns.cache.put(key, found, found.nbytes + 300)
        self._held[key] = found
        return found

    def _absent(self, encoding: Encoding, rows: int) -> Chunk:
        key = ("absent", encoding, rows)
        found: Chunk | None = self._columns.cache.get(key)
        if found is None:
            found = absent(encoding, rows)
            self._columns.cache.put(key, found, found.nbytes)
        return found

    def is_text(self, path_number: int) -> bool:
        return self._encodings[path_number] == "texts"

    def block(self, view: View, path_number: int, number: int) -> TextBlock:
        """Of texts. In a thread. Raises Missing."""
        version = view.segment.version
        chunk = self._held.get((version, path_number)) or self._columns.cache.get((version, path_number))
        if isinstance(chunk, Texts):
            return chunk.block(number)
        fenced = self.fenced(view, path_number)
        begin, end = fenced.spans[number : number + 2].tolist()
        piece = Block(path_number, number, begin, end - begin)
        if (held := self._held.get((version, piece))) is not None:
            return held
        data = self._raw.pop((version, piece), None)
        if data is None:
            raise Missing(piece)
        block = self._held[version, piece] = decode_block(data)
        return block

    async def _load(self, missing: Iterable[tuple[Segment, Piece]]) -> None:
        chunks: dict[int, list[Segment]] = {}
        blocks: dict[int, list[tuple[Segment, Block]]] = {}
        for segment, piece in missing:
            if isinstance(piece, Block):
                blocks.setdefault(piece.path_number, []).append((segment, piece))
            else:
                chunks.setdefault(piece, []).append(segment)
        dataset_id = self.state.dataset_id
        for path_number, segments in chunks.items():
            numbers = [segment.number for segment in segments]
            if path_number == _OFFSETS:
                found = await tables.load_offsets(self._conn, dataset_id, numbers)
            else:
                found = await tables.load_chunks(self._conn, dataset_id, numbers, path_number)
            for segment in segments:
                self._raw[segment.version, path_number] = found[segment.number]
        for path_number, pieces in blocks.items():
            spans = [(segment.number, piece.begin, piece.size_bytes) for segment, piece in pieces]
            loaded = await tables.load_spans(self._conn, dataset_id, spans, path_number)
            for segment, piece in pieces:
                self._raw[segment.version, piece] = loaded[segment.number, piece.begin]

    async def each(self, segments: Iterable[Segment], work: Callable[[View], T], *, hold: bool = False) -> dict[int, T]:
        """What `work` says of each segment, by number; it runs in a thread, over what it needs and no more.

        `hold`: what was loaded for it stays until the end of the query.
        """
        done: dict[int, T] = {}
        left = await self._columns.run(lambda: self._work_off(segments, work, done), self._deadline)
        while left:
            # Whole chunks are large, blocks of them are not.
            at_once = _LOADED_AT_ONCE if any(isinstance(piece, int) for _, piece in left) else len(left)
            now, later = left[:at_once], left[at_once:]
            while now:
                await self._load(now)
                pieces = [segment for segment, _ in now]
                now = await self._columns.run(lambda pieces=pieces: self._work_off(pieces, work, done), self._deadline)
                if not now and not hold:
                    self._held.clear()
            left = later
        if not hold:
            self._held.clear()
        return dict(sorted(done.items()))

    def _work_off(
        self, segments: Iterable[Segment], work: Callable[[View], T], done: dict[int, T]
    ) -> list[tuple[Segment, Piece]]:
        """Those that could not be done, and what is missing."""
        missing: list[tuple[Segment, Piece]] = []
        for segment in segments:
            self._deadline.check()
            try:
                done[segment.number] = work(View(segment, self))
            except Missing as gap:
                missing.append((segment, gap.piece))
        return missing

    # Filters.

    async def matching(self, tree: Tree) -> Matches:
        """Unknown are those that are to be asked in SQL; what was touched is in neither."""
        node = await self._node(tree)
        digest = blake2b(repr(node.key).encode(), digest_size=16).digest()
        touched = self.state.touched_items

        def work(view: View) -> Truth:
            truth = self._remembered(view, digest)
            if truth is None:
                truth = node.test(view)
                self._remember(view, digest, truth)
            start, end = np.searchsorted(touched, [view.first_id, view.first_id + 0x10000])
            if start < end:
                rows = evaluating.rows_of(view, touched[start:end])
                truth = Truth(truth.true.copy(), None if truth.unknown is None else truth.unknown.copy())
                truth.true[rows] = False
                if truth.unknown is not None:
                    truth.unknown[rows] = False
            return truth

        truths = await self.each(self.state.segments.values(), work)
        rows = await self._touched_rows()
        if rows is None:
            return Matches(truths)

        def test() -> Touched:
            true: list[int] = []
            unknown: list[int] = []
            for one in rows:
                self._deadline.check()
                truth = node.test(one)
                true += one.ids[truth.true].tolist()
                unknown += [] if truth.unknown is None else one.ids[truth.unknown].tolist()
            return Touched(true, unknown)

        return Matches(truths, await self._columns.run(test, self._deadline))

    async def _touched_rows(self) -> list[TouchedRows] | None:
        """Read when they are asked for the second time as they are. None: ask the rows themselves."""
        state = self.state
        if not 0 < len(state.touched_items) <= MOST_ITEMS:
            return None
        key = ("touched", state.dataset_id, state.notes, frozenset(path.number for path in state.paths.values()))
        kept: list[TouchedRows] | bool | None = self._columns.cache.get(key)
        if kept is None:
            self._columns.cache.put(key, True, 500)
        elif kept is True:
            kept = await load_touched(self._conn, state)
            self._columns.cache.put(key, False, 500)  # where they are too large to be kept
            if kept is not None:
                self._columns.cache.put(key, kept, 500 + sum(one.nbytes for one in kept))
        if not isinstance(kept, list):
            return None
        sought = {number: name for name, number in self._nowhere.items()}
        return [replace(one, sought=sought) for one in kept]

    def _remembered(self, view: View, digest: bytes) -> Truth | None:
        kept = self._columns.cache.get((view.segment.version, digest))
        if kept is None:
            return None
        true, unknown = kept
        return Truth(_unpacked(true, view.rows), None if unknown is None else _unpacked(unknown, view.rows))

    def _remember(self, view: View, digest: bytes, truth: Truth) -> None:
        true = np.packbits(truth.true)
        unknown = None if truth.unknown is None else np.packbits(truth.unknown)
        size_bytes = true.nbytes + (0 if unknown is None else unknown.nbytes) + 300
        self._columns.cache.put((view.segment.version, digest), (true, unknown), size_bytes)

    async def _node(self, tree: Tree) -> Node:
        match tree:
            case And(parts):
                return AllOf(tuple([await self._node(part) for part in parts]))
            case Or(parts):
                return AnyOf(tuple([await self._node(part) for part in parts]))
            case Not(part):
                return Complement(await self._node(part))
            case HasAnnotation() | OfItem():
                return Always(None)
            case ElementMatch():
                return await self._json(tree)
            case Condition():
                return await self._condition(tree)
            case _:
                assert_never(tree)

    async def _condition(self, condition: Condition) -> Node:  # noqa: PLR0911 - one case a kind of field
        match condition.operator:
            case "ne":
                return Complement(await self._condition(replace(condition, operator="eq")))
            case "nin":
                return Complement(await self._condition(replace(condition, operator="in")))
            case "exists" if not truth_of(condition.value):
                return Complement(await self._condition(replace(condition, value=True)))
            case _:
                pass
        field = ITEM_FIELDS.find(condition.field)
        made = _of_constants(condition, self.state.dataset_id) or _of_ids(condition)
        if made is not None:
            return made
        if condition.field in ("filename", "name"):
            return await self._path(condition, field)
        if condition.field == "annotated":
            return await self._annotated(condition)
        covered = await self._covered(condition.field)
        if covered is None:
            return Always(None)
        if condition.field == "dir":
            return await self._members(condition, covered, _FOLDERS, SQL("SELECT folder.id FROM folder WHERE "))
        if condition.field == "creator":
            return await self._members(condition, covered, _CREATORS, SQL("SELECT account.id FROM account WHERE "))
        if condition.field in COLUMNS and field.kind in ("integer", "timestamp"):
            return _of_integers(condition, field, covered)
        return await self._json(condition)

    async def _covered(self, name: str) -> int | None:
        """The number of its path. None, and noted: no column has it, or none that means the same.

        A path that no item in columns has anything at has a number, be it covered or not.
        """
        is_document = name not in COLUMNS and any(name.startswith(prefix + ".") for prefix in DOCUMENTS)
        if name in COLUMNS or (is_document and name not in ITEM_FIELDS.named):
            path = self.state.paths.get(name)
            without = self.state.without(name)
            if (path is not None and not without) or (is_document and await self._is_absent(without, name)):
                return self._number_of_nowhere(name) if path is None else path.number
        self.uncovered[name] = None
        return None

    def _number_of_nowhere(self, name: str) -> int:
        number = self._nowhere.setdefault(name, -1 - len(self._nowhere))
        self._encodings[number] = "codes"
        return number

    async def _is_absent(self, segments: Sequence[Segment], name: str) -> bool:
        """Whether none of the items in these segments has anything at a path in metadata."""
        keys = {segment.number: ("absent", segment.version, name) for segment in segments}
        known = {number: self._columns.cache.get(key) for number, key in keys.items()}
        unknown = [number for number, is_absent in known.items() if is_absent is None]
        if unknown:
            loaded = await tables.load_absent(self._conn, self.state.dataset_id, unknown, name)
            for number, is_absent in loaded.items():
                self._columns.cache.put(keys[number], is_absent, 300 + 2 * len(name))
            known |= loaded
        return all(known.values())

    async def _json(self, part: Condition | ElementMatch) -> Node:
        number = await self._covered(part.field)
        if number is None:
            return Always(None)
        values = await self.values(number)
        return JsonTest(number, part, hash_key=self.state.hash_key, values=values, cache=self._columns.cache)

    async def values(self, path_number: int) -> Values:
        """The dictionary of a path in codes; of others it is empty."""
        if self._encodings[path_number] != "codes":
            return Values(())
        known: Values = self._columns.cache.get(("values", path_number)) or Values([])
        new = await tables.load_values(
            self._conn, self.state.dataset_id, path_number, after=len(known.json) + evaluating.FIRST_CODE - 1
        )
        if new:
            known = Values([*known.json, *(conditions.exact(value) for _, value in new)])
            self._columns.cache.put(("values", path_number), known, known.nbytes)
        return known

    async def _annotated(self, condition: Condition) -> Node:
        number = await self._covered("annotationsCount")
        if number is None:
            return Always(None)
        if condition.operator == "exists":
            return Always(True)
        wanted = condition.value if condition.operator == "in" else [condition.value]
        if condition.operator not in ("eq", "in"):
            return Always(False)
        ranges: list[Range] = []
        if any(value is True for value in wanted):
            ranges.append((1, LARGEST_ID))
        if any(value is False for value in wanted):
            ranges.append((0, 0))
        return IntegerTest(number, ranges)

    async def _members(self, condition: Condition, path_number: int, table: FieldTable, select: SQL) -> Node:
        of_absent = False
        if condition.operator in ("eq", "in"):
            operands = condition.value if condition.operator == "in" else [condition.value]
            of_absent = any(operand is None for operand in operands)
            condition = replace(condition, operator="in", value=[each for each in operands if each is not None])
        ids = await self._ids(select, condition, table)
        return MemberTest(path_number, ids, of_absent=of_absent)

    async def _ids(self, select: SQL, condition: Condition, table: FieldTable) -> NDArray[np.int64]:
        where, parameters = compile_filter(condition, dataset_id=self.state.dataset_id, fields=table)
        cursor = self._conn.cursor(binary=True)
        await cursor.execute(select + where, parameters, prepare=False)
        return np.array([row_id for (row_id,) in await cursor.fetchall()], np.int64)

    # Paths and names.

    async def _path(self, condition: Condition, field: Field) -> Node:
        number = await self._covered("filename")
        if number is None:
            self.uncovered[condition.field] = None
            return Always(None)
        match condition.operator:
            case "exists":
                return Always(True)
            case "eq" | "in":
                operands = condition.value if condition.operator == "in" else [condition.value]
                texts = [operand for operand in operands if isinstance(operand, str)]
                if field.kind == "text":
                    return AnyOf(tuple(_of_name(number, text) for text in texts))
                patterns = [await self._pattern(number, text) for text in texts if is_pattern(text)]
                return AnyOf((*patterns, await self._at([text for text in texts if not is_pattern(text)])))
            case _:
                if not isinstance(condition.value, str):
                    return Always(False)
                self.uncovered[condition.field] = None
                return Always(None)

    async def _at(self, paths: Sequence[str]) -> Node:
        if not paths:
            return Always(False)
        select = SQL("SELECT item.id FROM item WHERE ")
        return ItemsTest(await self._ids(select, Condition("filename", "in", list(paths)), ITEM_FIELDS))

    async def _pattern(self, path_number: int, pattern: str) -> Node:
        """Whatever begins with a folder is sought in that folder, and those below."""
        parts = path_parts(pattern, folder_itself=False)
        match parts:
            case [mark] if mark is ANY or mark is BELOW:
                return Always(True)
            case [str(folder), mark] if mark is BELOW and folder.strip("/"):
                return AnyOf((await self._below(folder), await self._at([folder])))
            case [str(prefix), mark] if mark is ANY and prefix.endswith("/") and prefix.strip("/"):
                return await self._below(prefix[:-1])
            case [str(prefix), *_] if prefix.startswith("/"):
                folder = prefix.rpartition("/")[0]
                test = PathTest(path_number, parts)
                return AllOf((await self._below(folder), test)) if folder.strip("/") else test
            case _:
                return PathTest(path_number, parts)

    async def _below(self, folder: str) -> Node:
        """Items of the folder, and of all below."""
        number = await self._covered("dir")
        if number is None:
            return Always(None)
        # Compared as ranges: the name of a folder may hold a star.
        either = Or(
            (
                Condition("path", "in", [folder]),
                And((Condition("path", "gte", folder + "/"), Condition("path", "lt", folder + "0"))),
            )
        )
        table = FieldTable("folder.dataset_id = %(dataset_id)s", {"path": Field("folder.path", "text")})
        where, parameters = compile_filter(either, dataset_id=self.state.dataset_id, fields=table)
        cursor = self._conn.cursor(binary=True)
        await cursor.execute(SQL("SELECT folder.id FROM folder WHERE ") + where, parameters, prepare=False)
        return MemberTest(number, np.array([row_id for (row_id,) in await cursor.fetchall()], np.int64))

    # Order.

    async def keys(self, sort: Iterable[tuple[str, bool]]) -> list[tuple[Callable[[View], Array], int]] | None:
        """Of each field: its values in a segment, ascending as wanted, what has none last. None: no column has one."""
        found: list[tuple[Callable[[View], Array], int]] = []
        for name, descending in sort:
            if name == "annotated":
                name = "annotationsCount"  # noqa: PLW2901 - refined below
                number = await self._covered(name)
                if number is None:
                    return None
                found.append((_flag_key(number, descending=descending), number))
                continue
            number = await self._covered(name)
            if number is None:
                return None
            encoding = self._encodings[number]
            if encoding == "integers" and name not in ("dir", "creator"):
                field = ITEM_FIELDS.find(name)
                divisor = 1000 if field.kind == "timestamp" and field.sort_sql is None else 1
                found.append((_integer_key(number, descending=descending, divisor=divisor), number))
            elif encoding == "codes":
                ranks = await self._ranks(name, number)
                found.append((_code_key(number, ranks, descending=descending), number))
            elif encoding == "numbers":
                found.append((_number_key(number, descending=descending), number))
            elif name in ("dir", "creator"):
                ranks = await self._member_ranks(name)
                found.append((_member_key(number, ranks, descending=descending), number))
            else:
                self.uncovered[name] = None
                return None
        return found

    async def _ranks(self, name: str, path_number: int) -> NDArray[np.int32]:
        """By code, ascending in SQL's order."""
        values = (await self.values(path_number)).json
        key = ("ranks", path_number, len(values))
        ranks = self._columns.cache.get(key)
        if ranks is None:
            if name in COLUMNS:  # texts in the order of code points, or truth values
                first = evaluating.FIRST_CODE
                order = sorted(range(first, first + len(values)), key=lambda code: values[code - first])
            else:
                order = await tables.load_ranks(self._conn, self.state.dataset_id, path_number)
            ranks = np.zeros(len(values) + evaluating.FIRST_CODE, np.int32)
            ranks[order] = np.arange(1, len(order) + 1)
            self._columns.cache.put(key, ranks, ranks.nbytes)
        return ranks

    async def _member_ranks(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Ids of folders or accounts, rising, and the rank of each."""
        if name == "dir":
            statement = "SELECT id FROM folder WHERE dataset_id = %s ORDER BY path"
        else:
            statement = """SELECT id FROM account WHERE %s::bigint IS NOT NULL ORDER BY email COLLATE "C" """
        cursor = self._conn.cursor(binary=True)
        await cursor.execute(statement, [self.state.dataset_id])
        ids = np.array([row_id for (row_id,) in await cursor.fetchall()], np.int64)
        order = np.argsort(ids)
        return ids[order], (order + 1).astype(np.int32)

    async def ranked(
        self, matches: Matches, sort: Sequence[tuple[str, bool]], *, most_unordered: int
    ) -> "Ranked | None":
        """What it takes to find pages of an order. None: the columns do not tell the order of (too many of) the rows.

        `sort` names no field behind one that is unique.
        """
        descending = bool(sort) and sort[-1][1]
        by_values = [key for key in sort if key[0] != "id"]
        keys = await self.keys(by_values)
        if keys is None:
            return None
        numbers = [number for _, number in keys]
        segments = [self.state.segments[number] for number, truth in matches.truths.items() if truth.true.any()]

        def split(view: View) -> tuple[NDArray[np.bool_], list[int]]:
            true = matches.truths[view.segment.number].true
            unordered = unordered_rows(view, numbers)
            if unordered is None or not (unordered := unordered & true).any():
                return true, []
            offsets = view.offsets()[unordered].astype(np.int64) + view.first_id
            return true & ~unordered, offsets.tolist()

        found = await self.each(segments, split, hold=True)
        unordered_ids = [item_id for _, ids in found.values() for item_id in ids]
        if len(unordered_ids) > most_unordered:
            return None
        return Ranked(self, {number: mask for number, (mask, _) in found.items()}, keys, unordered_ids, descending)

    async def rank(self, order: "Ranked", first: int, last: int) -> list[int]:
        """The ids at these ranks of what is ordered by the columns."""

        def work() -> list[tuple[int, Array]]:
            def by_segment(key: Callable[[View], Array]) -> Callable[[int], Array]:
                return lambda number: key(View(self.state.segments[number], self))

            parts = [part for number, mask in order.masks.items() if (part := part_of(number, mask)).count]
            keys = [by_segment(key) for key, _ in order.keys]
            return ranked(parts, keys, first, last, descending_ids=order.descending_ids, check=self._deadline.check)

        return await self._ids_of(await self._columns.run(work, self._deadline))

    async def true_ids(self, matches: Matches) -> list[int]:
        """All of them, in the order of ids: they are few."""
        segments = [self.state.segments[number] for number, truth in matches.truths.items() if truth.true.any()]

        def work(view: View) -> list[int]:
            true = matches.truths[view.segment.number].true
            return (view.offsets()[true].astype(np.int64) + view.first_id).tolist()

        found = await self.each(segments, work)
        return [item_id for ids in found.values() for item_id in ids]

    async def tally(self, matches: Matches, name: str) -> "Tally | None":
        """How many rows have each value of a field. None: no column tells."""
        number = await self._covered(name)
        if number is None:
            return None
        encoding = self._encodings[number]
        if encoding not in ("codes", "numbers", "integers") or ITEM_FIELDS.find(name).kind == "timestamp":
            return None
        segments = [self.state.segments[each] for each, truth in matches.truths.items() if truth.true.any()]
        known = (await self.values(number)).json

        def work(view: View) -> _Counted:
            return _counted(view, number, matches.truths[view.segment.number].true, len(known))

        found = (await self.each(segments, work)).values()
        tally = Tally([item_id for one in found for item_id in one.unknown_ids])
        for value in (value for one in found for value in one.others):
            tally.add(value, 1)
        if encoding == "codes":
            codes = sum((one.numbers for one in found), np.zeros(len(known) + evaluating.FIRST_CODE, np.int64))
            for value, many in zip(known, codes[evaluating.FIRST_CODE :].tolist(), strict=True):
                if many:
                    tally.add(value, many)
            return tally
        values, many = _merged([(one.values, one.numbers) for one in found])
        named = await self._names(name, values)
        for value, number_of in zip(named, many.tolist(), strict=True):
            if value is not None:
                tally.add(value, number_of)
        return tally

    async def _names(self, name: str, values: Array) -> list[Any]:
        """Of folders and accounts, whose ids the columns have."""
        if name not in ("dir", "creator"):
            return values.tolist()
        if name == "dir":
            statement = "SELECT id, path FROM folder WHERE dataset_id = %s AND id = ANY(%s)"
        else:
            statement = "SELECT id, email FROM account WHERE %s::bigint IS NOT NULL AND id = ANY(%s)"
        names = dict(await (await self._conn.execute(statement, [self.state.dataset_id, values.tolist()])).fetchall())
        return [names.get(value) for value in values.tolist()]

    async def orders_by_text(self, sort: Sequence[tuple[str, bool]]) -> bool:
        """Whether `near` finds pages of this order."""
        number = await self._covered(sort[0][0])
        if (
            number is None
            or self._encodings[number] not in ("paths", "texts")
            or any(key != "id" for key, _ in sort[1:])
        ):
            return False
        return self._encodings[number] == "paths" or await tables.has_byte_order(self._conn)

    async def near(
        self, matches: Matches, sort: Sequence[tuple[str, bool]], first: int, until: int, *, others: int
    ) -> "Nearby":
        """Rows among which are those of ranks from `first` up to `until` in an order that `orders_by_text`.

        `others`: how many rows more there are to be put between these.
        """
        number = await self._covered(sort[0][0])
        assert number is not None
        parts = await self.each(self.state.segments.values(), lambda view: self.fenced(view, number))
        versions = tuple(segment.version for segment in self.state.segments.values())
        key = ("fences", self.state.dataset_id, number)
        masks = {segment: truth.true for segment, truth in matches.truths.items()}
        unordered = {segment: (rows := part.others())[masks[segment][rows]] for segment, part in parts.items()}
        skipped = max(0, first - others - sum(map(len, unordered.values())))

        def work() -> tuple[fences.Near, list[tuple[int, Array]]]:
            kept = self._columns.cache.get(key)
            if kept is None or kept[0] != versions:
                merged = fences.merged(parts)
                kept = (versions, merged)
                self._columns.cache.put(key, kept, merged.nbytes)
            near = fences.near(kept[1], parts, masks, skipped, until, descending=sort[0][1])
            if until <= near.total:
                return near, []
            # Those without a value come last, by their ids.
            without: list[Part] = []
            for segment, part in parts.items():
                mask = masks[segment].copy()
                mask[part.order] = False
                mask[part.others()] = False
                without.append(part_of(segment, mask))
            tail = max(0, skipped - near.total), until - near.total
            return near, ranked(without, [], *tail, descending_ids=sort[-1][1])

        near, last = await self._columns.run(work, self._deadline)
        rows = [*near.rows.items(), *last]
        return Nearby(
            await self._ids_of(rows),
            await self._ids_of(list(unordered.items())),
            near.before + max(0, skipped - near.total),
        )

    async def _ids_of(self, rows: Sequence[tuple[int, Array]]) -> list[int]:
        segments = {number: self.state.segments[number] for number, _ in rows}
        offsets = await self.each(segments.values(), lambda view: view.offsets(), hold=True)
        ids = [offsets[number][places].astype(np.int64) + segments[number].first_id for number, places in rows]
        return np.concatenate(ids).tolist() if ids else []

    def fenced(self, view: View, path_number: int) -> fences.Fenced:
        """Of texts or paths. In a thread. Raises Missing."""
        key = ("fenced", view.segment.version, path_number)
        kept = self._columns.cache.get(key)
        if kept is None:
            chunk = view.chunk(path_number)
            assert isinstance(chunk, Paths | Texts)
            kept = fences.fenced(chunk)
            self._columns.cache.put(key, kept, kept.nbytes)
        return kept

    async def unknown_ids(self, matches: Matches) -> list[int]:
        """Those that are to be asked in SQL, of what was not touched."""
        unknown = {number: truth.unknown for number, truth in matches.truths.items() if truth.unknown is not None}
        segments = [self.state.segments[number] for number, mask in unknown.items() if mask.any()]

        def work(view: View) -> list[int]:
            return (view.offsets()[unknown[view.segment.number]].astype(np.int64) + view.first_id).tolist()

        found = await self.each(segments, work)
        return [item_id for ids in found.values() for item_id in ids]


@dataclass(frozen=True, slots=True)
class Ranked:
    reader: Reader
    masks: Mapping[int, NDArray[np.bool_]]  # the rows that the columns order
    keys: Sequence[tuple[Callable[[View], Array], int]]
    unordered_ids: Sequence[int]  # those that fulfil the filter, too, but whose place only SQL knows
    descending_ids: bool


@dataclass(frozen=True, slots=True)
class Nearby:
    ids: Sequence[int]
    unordered_ids: Sequence[int]  # those that fulfil the filter, too, but whose place only SQL knows
    before: int  # how many rows come before those that are asked for, and are not among these


_JSON = json.JSONEncoder(ensure_ascii=False)


class Tally:
    """Counts of JSON values: 5 and 5.0 are one."""

    def __init__(self, unknown_ids: list[int]) -> None:
        self.unknown_ids = unknown_ids  # of rows with values that no column tells
        self._counts: dict[Any, tuple[Any, int]] = {}

    def add(self, value: Any, number: int) -> None:
        """A list counts for each of its elements, once."""
        if type(value) is str or type(value) is int:
            shown, before = self._counts.get(value, (value, 0))
            self._counts[value] = (shown, before + number)
            return
        once = {conditions.frozen(element): element for element in conditions.elements(value)}
        for key, element in once.items():
            shown, before = self._counts.get(key, (element, 0))
            self._counts[key] = (shown, before + number)

    def best(self, limit: int) -> tuple[list[tuple[Any, int]], int]:
        """Those with the highest counts first, equal ones in the order of their JSON; and how many values there are."""
        pairs = list(self._counts.values())
        if len(pairs) > limit > 0:
            numbers = np.fromiter((number for _, number in pairs), np.int64, len(pairs))
            least = int(np.partition(numbers, -limit)[-limit])
            pairs = [pair for pair in pairs if pair[1] >= least]
        shown = ((conditions.plain(value), number) for value, number in pairs)
        return nsmallest(limit, shown, key=lambda pair: (-pair[1], _JSON.encode(pair[0]))), len(self._counts)


@dataclass(frozen=True, slots=True)
class _Counted:
    values: Array  # numbers that there are; empty for codes
    numbers: NDArray[np.int64]  # how many rows have each of them, or each code
    others: Sequence[Any]  # JSON values
    unknown_ids: Sequence[int]


def _counted(view: View, path_number: int, true: NDArray[np.bool_], values: int) -> _Counted:
    match view.chunk(path_number):
        case Codes() as chunk:
            counts = np.bincount(chunk.codes[true], minlength=values + evaluating.FIRST_CODE)
            unknown = true & (chunk.codes == evaluating.UNKNOWN) if counts[evaluating.UNKNOWN] else None
            return _Counted(np.zeros(0), counts, (), [] if unknown is None else _ids(view, unknown))
        case Numbers() as chunk:
            found, counts = np.unique(chunk.values[true & chunk.valid], return_counts=True)
            others = [value for row, value in chunk.exceptions.items() if true[row]]
            unknown = np.zeros(view.rows, np.bool_)
            unknown[chunk.unknown] = True
            unknown &= true
            return _Counted(found, counts, others, _ids(view, unknown) if unknown.any() else [])
        case Integers() as chunk:
            found, counts = np.unique(
                chunk.deltas[true if chunk.valid is None else true & chunk.valid], return_counts=True
            )
            return _Counted(found.astype(np.int64) + np.int64(chunk.base), counts, (), ())
        case chunk:
            raise AssertionError(type(chunk))


def _ids(view: View, rows: NDArray[np.bool_]) -> list[int]:
    return (view.offsets()[rows].astype(np.int64) + view.first_id).tolist()


def _merged(counted: Sequence[tuple[Array, NDArray[np.int64]]]) -> tuple[Array, NDArray[np.int64]]:
    if not counted:
        return np.zeros(0), np.zeros(0, np.int64)
    values, places = np.unique(np.concatenate([one for one, _ in counted]), return_inverse=True)
    numbers = np.zeros(len(values), np.int64)
    np.add.at(numbers, places, np.concatenate([many for _, many in counted]))
    return values, numbers


def _unpacked(bits: NDArray[np.uint8], rows: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=rows).view(np.bool_)


# Conditions on what every item has.


def _of_constants(condition: Condition, dataset_id: int) -> Node | None:
    if condition.field == "type":
        return Always(conditions.of_value(condition)("file"))
    if condition.field == "datasetId":
        if condition.operator == "exists":
            return Always(True)
        return Always(any(low <= dataset_id <= high for low, high in _ranges_of_ids(condition)))
    return None


def _of_ids(condition: Condition) -> Node | None:
    if condition.field != "id":
        return None
    if condition.operator == "exists":
        return Always(True)
    ranges = _ranges_of_ids(condition)
    if len(ranges) <= _SINGLES:
        return IdTest(ranges)
    return ItemsTest(np.array([low for low, _ in ranges], np.int64))


def _ranges_of_ids(condition: Condition) -> list[Range]:
    if condition.operator in ("eq", "in"):
        operands = condition.value if condition.operator == "in" else [condition.value]
        numbers = [id_number(operand) for operand in operands if isinstance(operand, str)]
        return [(number, number) for number in numbers if number is not None and number <= LARGEST_ID]
    number = id_number(condition.value) if isinstance(condition.value, str) else None
    if number is None:
        raise BadRequest(f"{condition.field}: ids are 24 hexadecimal digits, in quotes.")
    return evaluating.id_ranges(condition.operator, min(number, LARGEST_ID + 1))


def _of_integers(condition: Condition, field: Field, path_number: int) -> Node:
    operator = condition.operator
    if operator == "exists":
        return IntegerTest(path_number, [(-LARGEST_ID - 1, LARGEST_ID)])
    if operator in ("eq", "in"):
        operands: list[Any] = condition.value if operator == "in" else [condition.value]
        operator = "eq"
    else:
        operands = [condition.value]
    of_absent = operator == "eq" and any(operand is None for operand in operands)
    ranges: list[Range] = []
    numbers: list[Decimal] = []
    for operand in operands:
        if field.kind == "timestamp" and is_pattern(operand):
            parts = text_parts(operand)
            if operator != "eq" or len(parts) > 2 or parts[-1] is not ANY:
                return Always(None)
            ranges.append(evaluating.range_of_prefix(parts[0] if isinstance(parts[0], str) else ""))
            continue
        value = column_value(field, condition.field, operand)
        if isinstance(value, datetime):
            one = evaluating.ranges_of_time(operator, value)
            ranges += [one] if one else []
        elif isinstance(value, Decimal):
            numbers.append(value)
    ranges += evaluating.ranges_of(operator, numbers)
    if len(ranges) > _SINGLES and all(low == high for low, high in ranges):
        members = [low for low, _ in ranges if abs(low) <= LARGEST_ID]
        return MemberTest(path_number, np.array(members, np.int64), of_absent=of_absent)
    return IntegerTest(path_number, ranges, of_absent=of_absent)


def _of_name(path_number: int, text: str) -> Node:
    """The last part of a path holds no slash."""
    if not is_pattern(text):
        return Always(False) if "/" in text else PathTest(path_number, [ANY, "/" + text])
    parts = text_parts(text)
    if any(isinstance(part, str) and "/" in part for part in parts):
        return Always(False)
    if len(parts) == 1 and parts[0] is ANY:
        return Always(True)
    if len(parts) == 2 and parts[0] is ANY:
        return PathTest(path_number, parts)
    return PathTest(path_number, [ANY, "/", *(SEGMENT if part is ANY else part for part in parts)])


# Keys to order by: smaller ones come first.

_LAST = np.iinfo(np.int64).max


def _integer_key(number: int, *, descending: bool, divisor: int) -> Callable[[View], Array]:
    def key(view: View) -> Array:
        chunk = view.chunk(number)
        assert isinstance(chunk, Integers)
        values = chunk.int64()
        if divisor > 1:
            values //= divisor
        if descending:
            np.invert(values, out=values)
        if chunk.valid is not None:
            values[~chunk.valid] = _LAST
        return values

    return key


def _flag_key(number: int, *, descending: bool) -> Callable[[View], Array]:
    def key(view: View) -> Array:
        chunk = view.chunk(number)
        assert isinstance(chunk, Integers)
        return ((chunk.int64() > 0) ^ descending).astype(np.int32)

    return key


def _code_key(number: int, ranks: NDArray[np.int32], *, descending: bool) -> Callable[[View], Array]:
    table = -ranks if descending else ranks.copy()
    table[: evaluating.FIRST_CODE] = table.max(initial=0) + 1

    def key(view: View) -> Array:
        chunk = view.chunk(number)
        assert isinstance(chunk, Codes)
        return table.take(chunk.codes)

    return key


def _number_key(number: int, *, descending: bool) -> Callable[[View], Array]:
    def key(view: View) -> Array:
        chunk = view.chunk(number)
        assert isinstance(chunk, Numbers)
        return np.where(chunk.valid, -chunk.values if descending else chunk.values, np.inf)

    return key


def _member_key(
    number: int, ranks: tuple[NDArray[np.int64], NDArray[np.int32]], *, descending: bool
) -> Callable[[View], Array]:
    ids, of_each = ranks

    def key(view: View) -> Array:
        chunk = view.chunk(number)
        assert isinstance(chunk, Integers)
        at = np.searchsorted(ids, chunk.int64())
        values = of_each[np.minimum(at, len(ids) - 1)] if len(ids) else np.zeros(view.rows, np.int32)
        if descending:
            values = -values
        if chunk.valid is not None:
            values[~chunk.valid] = 1 if descending else len(ids) + 1
        return values

    return key


def unordered_rows(view: View, numbers: Iterable[int]) -> NDArray[np.bool_] | None:
    """Rows with a value that the columns to order by do not tell."""
    found: NDArray[np.bool_] | None = None
    for number in numbers:
        chunk = view.chunk(number)
        rows: Any = None
        match chunk:
            case Codes():
                rows = np.flatnonzero(chunk.codes == evaluating.UNKNOWN)
            case Numbers():
                rows = [*chunk.exceptions, *chunk.unknown.tolist()]
            case _:
                continue
        if rows is not None and np.size(rows):
            found = np.zeros(view.rows, np.bool_) if found is None else found
            found[rows] = True
    return found
