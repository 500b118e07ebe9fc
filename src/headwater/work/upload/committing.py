"""Commits of planned uploads: items of what lies in the store, whatever the client says of it."""

import asyncio
import base64
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater.catalog import drivers, items, planned_uploads, tombstones
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.planned_uploads import Planned
from headwater.errors import BadRequest, HeadwaterError, StoreChanged
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import Doomed, ObjectInfo, Store
from headwater.work.upload.landing import Landed, Outcome, is_kept, land
from headwater.work.upload.looking import look_at
from headwater.work.upload.paths import check_writable
from headwater.work.workplace import Workplace

_FINISHED_AT_ONCE = 8
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Given:
    """What a client says of an upload that it has sent."""

    upload_id: int
    etag: str | None = None
    parts: Sequence[tuple[int, str | None]] | None = None  # number, etag
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None


@dataclass(slots=True)
class Committed:
    path: str
    outcome: Outcome | Literal["failed"]
    item_id: int | None = None
    size_bytes: int | None = None
    error: str | None = None


async def commit_uploads(
    place: Workplace, dataset: Dataset, caller: Account, given: Sequence[Given]
) -> list[Committed]:
    """Items of what lies in the store. What is told fails one by one; only a want of room fails all.

    May be repeated: what was committed is answered again. Raises QuotaExceeded, Unavailable.
    """
    await check_writable(place, dataset)
    ids = [one.upload_id for one in given]
    if len(set(ids)) < len(ids):
        raise BadRequest("files: an upload is there twice. Commit each once.")
    async with place.pool.connection() as conn:
        known = await planned_uploads.load(conn, dataset.id, caller.id, ids)
    async with place.places.of_dataset(dataset.id) as store:
        finished = await _finish_all(store, [(known[one.upload_id], one) for one in given if one.upload_id in known])
        async with place.pool.connection() as conn:
            paths = sorted({planned.path for planned in known.values()})
            await items.lock_paths(conn, dataset.id, paths)
            known = await planned_uploads.load(conn, dataset.id, caller.id, ids, locked=True)
            seen = Seen(
                await look_at(store, [planned.path[1:] for planned in known.values() if planned.outcome is None]),
                await items.find_items_at(conn, dataset.id, paths),
                await tombstones.etags_of(conn, dataset.id, paths),
            )
            judged = [_judge(one, known.get(one.upload_id), finished.get(one.upload_id), seen) for one in given]
            answers = await _land(conn, dataset, caller, given, judged, seen.strangers)
            lies = [
                info
                for one, answer in zip(given, answers, strict=True)
                if answer.outcome == "failed" and (info := _lie(one, known.get(one.upload_id), seen)) is not None
            ]
            await _remove(conn, store, dataset, lies)
    return answers


@dataclass(slots=True)
class Seen:
    """What there is under the locks of the paths."""

    infos: Mapping[str, ObjectInfo]  # by key
    items: Mapping[str, Item]  # by path
    deleted: Mapping[str, str | None]  # by path: the etags of objects whose items were deleted here
    landing: set[str] = field(default_factory=set[str])  # paths that are about to become items
    strangers: set[str] = field(default_factory=set[str])  # of them those where another's object lay, and stays


async def _finish_all(store: Store, uploads: Sequence[tuple[Planned, Given]]) -> dict[int, HeadwaterError | ObjectInfo]:
    """By id. StoreChanged is no failure: none was to be replaced, and another's object is there."""
    slots = asyncio.Semaphore(_FINISHED_AT_ONCE)
    results: dict[int, HeadwaterError | ObjectInfo] = {}

    async def finish(planned: Planned, one: Given) -> None:
        async with slots:
            try:
                results[planned.id] = await _finish(store, planned, one)
            except StoreChanged as error:
                results[planned.id] = error
                with suppress(HeadwaterError):  # the hour's cleaning tries again
                    await store.abort_parts(planned.path[1:], planned.part_state or {})
            except HeadwaterError as error:
                results[planned.id] = error

    async with asyncio.TaskGroup() as group:
        for planned, one in uploads:
            if planned.outcome is None and planned.part_bytes is not None:
                group.create_task(finish(planned, one))
    return results


async def _finish(store: Store, planned: Planned, one: Given) -> ObjectInfo:
    if planned.part_state is None:
        raise BadRequest(
            f"parts: none of {planned.path} was ever asked for. Ask for them, send them, and commit again."
        )
    key, state = planned.path[1:], planned.part_state
    listed = await store.list_parts(key, state)
    arrived = {part.number: part for part in listed}
    told = dict(one.parts or ())
    # SeaweedFS tells of each attempt at a part, in no order: the sender was answered which one counts.
    arrived |= {
        part.number: part for part in listed if (told.get(part.number) or "").strip('"') == part.etag.strip('"')
    }
    parts = list(arrived.values())
    for number, etag in told.items():
        if number not in arrived or (etag is not None and is_other_etag(etag, arrived[number].etag.strip('"'))):
            what = "is not what was sent" if number in arrived else "never came"
            raise BadRequest(f"parts: part {number:,} of {planned.path} {what}. Send it again, and commit then.")
    if (size_bytes := sum(part.size_bytes for part in parts)) != planned.size_bytes:
        raise BadRequest(
            f"parts: those of {planned.path} are {size_bytes:,} bytes together, but {planned.size_bytes:,} were "
            "planned. Plan it anew with the size it has."
        )
    is_new = planned.mode == "skip"
    return await store.finish_parts(key, state, parts, content_type=guess_mime_type(planned.path), only_if_new=is_new)


def _judge(
    one: Given,
    planned: Planned | None,
    finished: HeadwaterError | ObjectInfo | None,
    seen: Seen,
) -> Landed | Committed:
    """What is to become an item, or the answer."""
    if planned is None:
        return Committed(
            "", "failed", error="This upload is not known: it was forgotten, or is another's. Plan it anew."
        )
    if planned.outcome is not None:
        return Committed(planned.path, planned.outcome, planned.item_id, planned.size_bytes)
    if isinstance(finished, HeadwaterError) and not isinstance(finished, StoreChanged):
        return Committed(planned.path, "failed", error=str(finished))
    info = seen.infos.get(planned.path[1:])
    told = finished.etag if isinstance(finished, ObjectInfo) else one.etag
    is_stranger = info is not None and _is_stranger(one, planned, finished, info, seen)
    if info is None:
        reason = "its bytes never came. Send them again"
    elif is_stranger and planned.path in seen.deleted and seen.deleted[planned.path] in (None, info.etag):
        reason = "its item was deleted, but its object still lies in the bucket. Upload it with overwrite to replace it"
    elif not is_stranger and info.size_bytes != planned.size_bytes:
        item = seen.items.get(planned.path)
        if item is not None and is_kept(item, planned.mode) and item.etag == info.etag:
            return Committed(planned.path, "skip", item.id, item.size_bytes)
        reason = (
            f"an object of {info.size_bytes:,} bytes lies there, but {planned.size_bytes:,} were planned. If it is "
            "yours, plan it anew with the size it has; if not, a sync makes it an item"
        )
    elif not is_stranger and told is not None and is_other_etag(told, info.etag):
        reason = "another object was written there meanwhile. Upload it again, with overwrite if yours is to stay"
    elif planned.path in seen.landing:
        reason = "another upload to it is committed with this one. Commit them one after the other"
    else:
        seen.landing.add(planned.path)
        return _landed(one, planned, info, seen, is_stranger=is_stranger)
    return Committed(planned.path, "failed", error=f"{planned.path}: {reason}.")


def _landed(one: Given, planned: Planned, info: ObjectInfo, seen: Seen, *, is_stranger: bool) -> Landed:
    landed = Landed(
        planned.path,
        planned.mode,
        None,
        info,
        description=one.description,
        user_metadata=one.user_metadata,
        system_metadata=one.system_metadata,
        hold_id=planned.hold_id,
    )
    if not is_stranger:
        return landed
    seen.strangers.add(planned.path)
    sent = replace(landed, info=replace(info, size_bytes=planned.size_bytes))
    return sent.in_place_of(info)


def _is_stranger(
    one: Given, planned: Planned, finished: HeadwaterError | ObjectInfo | None, info: ObjectInfo, seen: Seen
) -> bool:
    """Whether another's object without an item lies where mode `skip` was to replace none."""
    if planned.mode != "skip" or planned.path in seen.items:
        return False
    if isinstance(finished, StoreChanged):
        return True
    was_refused = finished is None and one.etag is None  # or its answer was lost: then it is younger than its plan
    return was_refused and info.modified_at is not None and info.modified_at < planned.planned_at - _CLOCKS_DIFFER


def is_other_etag(told: str, known: str) -> bool:
    """Whether they tell of different objects; unsure is no. Google tells the MD5 in hexadecimal or in base64."""
    told = told.removeprefix("W/").strip('"')
    if len(told) == 32 and len(known) == 24:
        try:
            told = base64.b64encode(bytes.fromhex(told)).decode()
        except ValueError:
            return True
    return len(told) == len(known) and told != known


async def _land(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    caller: Account,
    given: Sequence[Given],
    judged: Sequence[Landed | Committed],
    strangers: Container[str],
) -> list[Committed]:
    landed = [one for one in judged if isinstance(one, Landed)]
    done = iter(await land(conn, dataset, caller, landed) if landed else [])
    answers: list[Committed] = []
    committed: list[tuple[int, int, str]] = []
    for one, verdict in zip(given, judged, strict=True):
        if isinstance(verdict, Committed):
            answers.append(verdict)
            continue
        uploaded = next(done)
        item = uploaded.item
        outcome = "skip" if item.path in strangers else uploaded.outcome
        answers.append(Committed(item.path, outcome, item.id, item.size_bytes))
        committed.append((one.upload_id, item.id, outcome))
    await planned_uploads.note_committed(conn, committed)
    return answers


def _lie(one: Given, planned: Planned | None, seen: Seen) -> ObjectInfo | None:
    """The object of a file that is not what was planned, if it is surely the client's own and nobody's else."""
    info = None if planned is None else seen.infos.get(planned.path[1:])
    if planned is None or info is None or one.etag is None or planned.path in seen.items:
        return None
    is_own = one.etag.strip('"') == info.etag and info.size_bytes != planned.size_bytes
    is_since = info.modified_at is not None and info.modified_at >= planned.planned_at - _CLOCKS_DIFFER
    return info if is_own and is_since else None


async def _remove(conn: AsyncConnection[Any], store: Store, dataset: Dataset, lies: Sequence[ObjectInfo]) -> None:
    """Where we may; elsewhere the next sync makes items of them."""
    if not lies or dataset.driver_id is None or not (await drivers.get_driver(conn, dataset.driver_id)).allow_delete:
        return
    await store.delete_many([Doomed(info.key, info.etag) for info in lies])
