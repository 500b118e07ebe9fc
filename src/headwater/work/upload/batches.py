"""Many small files in one request: written side by side, made items in one transaction."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from headwater.catalog import items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest, HeadwaterError, NotFound
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import Doomed, ObjectInfo, Store
from headwater.work.upload.committing import Committed
from headwater.work.upload.kinds import KIND_BYTES, Kind, read_kind
from headwater.work.upload.landing import Landed, Uploaded, is_kept, land, unused_keys
from headwater.work.upload.looking import find_strangers
from headwater.work.upload.paths import Door, check_writable, checked_path
from headwater.work.upload.streamed import Announced
from headwater.work.workplace import Workplace

_GROUP_FILES = 200
_GROUP_BYTES = 8 * 1024**2  # kept in memory until they are written
_WRITTEN_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Small:
    """A file that is kept in memory; `announced.path` is as it was given."""

    announced: Announced
    content: bytes


async def upload_batch(
    place: Workplace, dataset: Dataset, caller: Account, files: AsyncIterator[Small]
) -> list[Committed]:
    """What became of each file, in their order.

    When the iterator raises, what came before in whole groups are items, and of the others nothing is left.
    """
    door = await check_writable(place, dataset)
    answers: list[Committed] = []
    group: dict[str, Small] = {}
    async for file in files:
        path = file.announced.path.lstrip("/")  # with a slash or without, it is one path
        is_full = len(group) >= _GROUP_FILES or sum(len(one.content) for one in group.values()) >= _GROUP_BYTES
        if is_full or path in group:
            answers += await _write_group(place, dataset, caller, door, list(group.values()))
            group = {}
        group[path] = file
    return answers + await _write_group(place, dataset, caller, door, list(group.values()))


async def _write_group(
    place: Workplace, dataset: Dataset, caller: Account, door: Door, group: Sequence[Small]
) -> list[Committed]:
    answers: dict[str, Committed] = {}
    admitted: dict[str, _Admitted] = {}  # by the path that is kept
    for file in group:
        try:
            path = checked_path(file.announced.path)
            door.check(path)
            kind = await read_kind(place, caller, path, file.content[:KIND_BYTES])
        except (BadRequest, NotFound) as error:
            answers[file.announced.path] = Committed(file.announced.path, "failed", error=str(error))
        else:
            admitted[path] = _Admitted(file.announced, file.content, kind)
    async with place.pool.connection() as conn:
        there = await items.find_items_at(conn, dataset.id, list(admitted))
        held = await quotas.hold_places(conn, dataset.id, len(admitted.keys() - there.keys()))
    holds = dict(zip([path for path in admitted if path not in there], held.ids, strict=False))
    for path in [path for path in admitted if path not in there and path not in holds]:
        answers[admitted.pop(path).announced.path] = Committed(path, "failed", error=str(held.refused))
    try:
        async with place.places.of_dataset(dataset.id) as store:
            written = await _Group(place, dataset, caller, store, admitted, holds).write()
    finally:
        async with place.pool.connection() as conn:
            await quotas.release_places(conn, [hold_id for hold_id in holds.values() if hold_id is not None])
    for path, file in admitted.items():
        answers[file.announced.path] = written[path]
    return [answers[file.announced.path] for file in group]


@dataclass(frozen=True, slots=True)
class _Admitted(Small):
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Group:
    place: Workplace
    dataset: Dataset
    caller: Account
    store: Store
    files: dict[str, _Admitted]
    holds: dict[str, int | None]

    async def write(self) -> dict[str, Committed]:
        """By path; objects and rows under the locks of the paths."""
        answers: dict[str, Committed] = {}
        own_keys = {path: f"objects/{uuid4().hex}" for path in self.files} if self.dataset.driver_id is None else {}
        try:
            async with self.place.pool.connection() as conn:
                await items.lock_paths(conn, self.dataset.id, list(self.files))
                there = await items.find_items_at(conn, self.dataset.id, list(self.files))
                for path, file in self.files.items():
                    if path in there and is_kept(there[path], file.announced.mode):
                        answers[path] = Committed(path, "skip", there[path].id, there[path].size_bytes)
                new = [path for path in self.files if path not in answers]
                skipping = [path for path in new if self.files[path].announced.mode == "skip"]
                strangers = await find_strangers(conn, self.store, self.dataset, skipping)
                infos = await self._put_all([path for path in new if path not in strangers], own_keys, answers)
                landed = [self._landed(path, info, own_keys.get(path)) for path, info in infos.items()]
                landed += [self._sent(path).in_place_of(stranger) for path, stranger in strangers.items()]
                done = await land(conn, self.dataset, self.caller, landed) if landed else []
                done = [replace(one, outcome="skip") if one.item.path in strangers else one for one in done]
        except BaseException:
            # Of our own storage nobody would ever find them again; in a bucket the next sync makes them items.
            await self._drop_unused(own_keys)
            raise
        await self.store.delete_many([Doomed(key) for key in unused_keys(landed, done)])
        return answers | {one.item.path: _answer(one) for one in done}

    async def _put_all(
        self, paths: Sequence[str], own_keys: dict[str, str], answers: dict[str, Committed]
    ) -> dict[str, ObjectInfo]:
        slots = asyncio.Semaphore(_WRITTEN_AT_ONCE)
        infos: dict[str, ObjectInfo] = {}

        async def put(path: str) -> None:
            key = own_keys.get(path, path[1:])
            async with slots:
                try:
                    infos[path] = await self.store.put(
                        key, self.files[path].content, content_type=guess_mime_type(path)
                    )
                except HeadwaterError as error:
                    answers[path] = Committed(path, "failed", error=str(error))

        async with asyncio.TaskGroup() as group:
            for path in paths:
                group.create_task(put(path))
        return infos

    def _sent(self, path: str) -> Landed:
        """As it would lie in the bucket."""
        return self._landed(path, ObjectInfo(path[1:], len(self.files[path].content), "", None, None), None)

    def _landed(self, path: str, info: ObjectInfo, own_key: str | None) -> Landed:
        announced, kind = self.files[path].announced, self.files[path].kind
        return Landed(
            path,
            announced.mode,
            own_key,
            info,
            description=announced.description,
            user_metadata=announced.user_metadata,
            system_metadata=announced.system_metadata,
            mime_type=kind.mime_type,
            link=kind.link,
            hold_id=self.holds.get(path),
        )

    async def _drop_unused(self, own_keys: dict[str, str]) -> None:
        """Objects that have no row; a commit that we only did not hear of keeps them."""
        if not own_keys:
            return
        async with self.place.pool.connection() as conn:
            await items.lock_paths(conn, self.dataset.id, list(own_keys))
            there = await items.find_items_at(conn, self.dataset.id, list(own_keys))
            used = {item.object_key for item in there.values()}
            await self.store.delete_many([Doomed(key) for key in own_keys.values() if key not in used])


def _answer(done: Uploaded) -> Committed:
    return Committed(done.item.path, done.outcome, done.item.id, done.item.size_bytes)
