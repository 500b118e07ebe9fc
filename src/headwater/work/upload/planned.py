"""Uploads that clients send to the bucket themselves, by requests we sign. `committing` makes items of them."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater.catalog import items, planned_uploads, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.planned_uploads import New, Planned
from headwater.errors import BadRequest, HeadwaterError, NotFound
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import SignedRequest, Store
from headwater.work.upload.kinds import may_be_link
from headwater.work.upload.landing import Mode, is_kept
from headwater.work.upload.paths import Door, check_writable, checked_path
from headwater.work.workplace import Workplace

Action = Literal["skip", "put", "parts", "batch", "tus", "refused"]

LARGEST_PUT_BYTES = 32 * 1024**2  # larger ones go in parts, which can be sent again one by one
LARGEST_BATCH_FILE_BYTES = 4 * 1024**2
LIFETIME = timedelta(days=1)
_TRIED_FOR = timedelta(days=7)  # to remove the parts of an expired one
_SIGNED_FOR_S = 6 * 3600
_SIGNED_AT_ONCE = 50  # then others have their turn
_EXPIRED_AT_ONCE = 100
FORGET_EXPIRED_TASK = "forget_expired_uploads"
FORGET_EXPIRED_AT = "23 * * * *"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    path: str
    size_bytes: int


@dataclass(slots=True)
class Answer:
    """What the client is to do about one file."""

    path: str
    action: Action
    item_id: int | None = None
    upload_id: int | None = None
    request: SignedRequest | None = None
    part_bytes: int | None = None
    error: str | None = None


async def plan_uploads(
    place: Workplace, dataset: Dataset, caller: Account, mode: Mode, wanted: Sequence[Wanted], *, direct: bool
) -> tuple[list[Answer], datetime]:
    """An answer for each file, in their order, and until when they hold. Raises BadRequest where nothing goes."""
    expires_at = datetime.now(UTC) + LIFETIME
    answers = await _admitted(place, dataset, wanted)
    paths = [answer.path for answer in answers if answer.action != "refused"]
    async with place.pool.connection() as conn:
        there = await items.find_items_at(conn, dataset.id, paths)
    for answer in answers:
        item = there.get(answer.path)
        if item is not None and answer.action != "refused" and is_kept(item, mode):
            answer.action, answer.item_id = "skip", item.id
    waiting = [(answer, file) for answer, file in zip(answers, wanted, strict=True) if answer.action == "batch"]
    async with place.places.of_dataset(dataset.id) as store:
        for number, (answer, file) in enumerate(waiting, start=1):
            await _choose(store, answer, file.size_bytes, only_if_new=mode == "skip", direct=direct)
            if number % _SIGNED_AT_ONCE == 0:
                await asyncio.sleep(0)
    chosen = [(answer, file.size_bytes) for answer, file in waiting if answer.action in ("put", "parts")]
    if chosen:
        async with place.pool.connection() as conn:
            await _keep(conn, dataset, caller, mode, chosen, there, expires_at)
    return answers, expires_at


async def _admitted(place: Workplace, dataset: Dataset, wanted: Sequence[Wanted]) -> list[Answer]:
    """Refused, or to go some way; raises BadRequest where no file is taken."""
    door = await check_writable(place, dataset)
    answers: list[Answer] = []
    taken: set[str] = set()
    for file in wanted:
        try:
            path = _checked(door, file.path, taken)
        except BadRequest as error:
            answers.append(Answer(file.path, "refused", error=str(error)))
        else:
            taken.add(path)
            answers.append(Answer(path, "batch"))
    return answers


def _checked(door: Door, given: str, taken: set[str]) -> str:
    path = checked_path(given)
    door.check(path)
    if path in taken:
        raise BadRequest(f"{path} is planned twice at once. Send one of them.")
    return path


async def _choose(store: Store, answer: Answer, size_bytes: int, *, only_if_new: bool, direct: bool) -> None:
    """The way the bytes go."""
    try:
        request = None
        if direct and not may_be_link(answer.path, size_bytes):  # what a link file says is read on its way
            request = await store.sign_put(
                answer.path[1:],
                size_bytes=size_bytes,
                content_type=guess_mime_type(answer.path),
                expires_s=_SIGNED_FOR_S,
                only_if_new=only_if_new,
            )
        part_bytes = store.part_limits(size_bytes).part_bytes
    except BadRequest as error:  # no name, or no size, for this store
        answer.action, answer.error = "refused", str(error)
        return
    if request is None:
        answer.action = "batch" if size_bytes <= LARGEST_BATCH_FILE_BYTES else "tus"
    elif size_bytes <= LARGEST_PUT_BYTES:
        answer.action, answer.request = "put", request
    else:
        answer.action, answer.part_bytes = "parts", part_bytes


async def _keep(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    caller: Account,
    mode: Mode,
    chosen: Sequence[tuple[Answer, int]],
    there: Mapping[str, Item],
    expires_at: datetime,
) -> None:
    """Their rows and their places in the quota, as far as there are any."""
    held = await quotas.hold_places(conn, dataset.id, sum(answer.path not in there for answer, _ in chosen))
    places = iter(held.ids)
    new: list[New] = []
    for answer, size_bytes in chosen:
        hold_id = None
        if answer.path not in there:
            try:
                hold_id = next(places)
            except StopIteration:
                answer.action, answer.request, answer.part_bytes = "refused", None, None
                answer.error = str(held.refused)
                continue
        new.append(New(answer.path, size_bytes, answer.part_bytes, hold_id))
    ids = await planned_uploads.add(conn, dataset.id, caller.id, mode, new, expires_at)
    for answer, _ in chosen:
        answer.upload_id = ids.get(answer.path)


# Parts.


@dataclass(frozen=True, slots=True)
class PartRequest:
    number: int
    size_bytes: int
    request: SignedRequest


async def sign_parts(
    place: Workplace, dataset: Dataset, caller: Account, upload_id: int, numbers: Sequence[int]
) -> list[PartRequest]:
    """A request for each of these parts. Raises NotFound when the upload is no longer known, BadRequest."""
    planned = await _get_begun(place, dataset, caller, upload_id)
    part_bytes, state = planned.part_bytes, planned.part_state
    assert part_bytes is not None
    assert state is not None
    parts = max(1, -(-planned.size_bytes // part_bytes))
    if excess := [number for number in numbers if number > parts]:
        raise BadRequest(
            f"numbers: {planned.path} has {parts:,} parts of {part_bytes:,} bytes, and none {excess[0]:,}."
        )
    signed: list[PartRequest] = []
    async with place.pool.connection() as conn:  # however long it takes, it lasts while its parts are asked for
        await planned_uploads.keep_until(conn, upload_id, datetime.now(UTC) + LIFETIME)
    async with place.places.of_dataset(dataset.id) as store:
        for number in numbers:
            size_bytes = min(part_bytes, planned.size_bytes - (number - 1) * part_bytes)
            request = await store.sign_part(
                planned.path[1:], state, number, size_bytes=size_bytes, expires_s=_SIGNED_FOR_S
            )
            if request is None:
                raise BadRequest(f"The bucket of dataset {dataset.name!r} takes no direct uploads any more. Plan anew.")
            signed.append(PartRequest(number, size_bytes, request))
            if number % _SIGNED_AT_ONCE == 0:
                await asyncio.sleep(0)
    return signed


async def _get_begun(place: Workplace, dataset: Dataset, caller: Account, upload_id: int) -> Planned:
    """The upload, begun in the store."""
    planned = await _get_planned(place, dataset, caller, upload_id)
    if planned.part_bytes is None:
        raise BadRequest(f"upload: {planned.path} is sent in one request, the one of its plan.")
    if planned.part_state is not None:
        return planned
    async with place.places.of_dataset(dataset.id) as store:
        key = planned.path[1:]
        state = await store.begin_parts(key, content_type=guess_mime_type(planned.path), part_bytes=planned.part_bytes)
        async with place.pool.connection() as conn:
            is_ours = await planned_uploads.begin(conn, upload_id, state)
        if not is_ours:
            await store.abort_parts(key, state)
    return await _get_planned(place, dataset, caller, upload_id)


async def _get_planned(place: Workplace, dataset: Dataset, caller: Account, upload_id: int) -> Planned:
    async with place.pool.connection() as conn:
        planned = (await planned_uploads.load(conn, dataset.id, caller.id, [upload_id])).get(upload_id)
    if planned is None or planned.outcome is not None:
        raise NotFound("This upload is no longer waited for: it was committed, or forgotten. Plan it anew.")
    return planned


# Ends.


async def forget_uploads(place: Workplace, dataset: Dataset, caller: Account, upload_ids: Sequence[int]) -> None:
    """What a client has given up. Objects that it wrote stay: the next sync makes them items."""
    async with place.pool.connection() as conn:
        known = await planned_uploads.load(conn, dataset.id, caller.id, upload_ids)
    await _forget(place, dataset.id, [planned for planned in known.values() if planned.outcome is None])


async def forget_all(place: Workplace, dataset_id: int) -> None:
    """What was planned for a dataset that is deleted."""
    async with place.pool.connection() as conn:
        known = await planned_uploads.find_open(conn, dataset_id)
    await _forget(place, dataset_id, known)


async def forget_expired(place: Workplace) -> None:
    """A job: what nobody committed in time, and what is kept of those that were. Safe to repeat."""
    after_id = 0
    while True:
        async with place.pool.connection() as conn:
            expired = await planned_uploads.find_expired(conn, after_id=after_id, limit=_EXPIRED_AT_ONCE)
        if not expired:
            return
        after_id = expired[-1].id
        for dataset_id in {planned.dataset_id for planned in expired}:
            await _forget(place, dataset_id, [planned for planned in expired if planned.dataset_id == dataset_id])


async def drop_abandoned(place: Workplace, planned: Planned) -> bool:
    """Forget an expired one. False when its store does not let its parts go now."""
    await _forget(place, planned.dataset_id, [planned])
    async with place.pool.connection() as conn:
        return planned.id not in {one.id for one in await planned_uploads.find_open(conn, planned.dataset_id)}


async def _forget(place: Workplace, dataset_id: int, uploads: Sequence[Planned]) -> None:
    """Those whose parts the store does not let go now stay, to be tried again, but not for ever."""
    forgotten = {planned.id for planned in uploads}
    begun = [planned for planned in uploads if planned.part_state is not None and planned.outcome is None]
    if begun:
        try:
            async with place.places.of_dataset(dataset_id) as store:
                for planned in begun:
                    await store.abort_parts(planned.path[1:], planned.part_state or {})
        except HeadwaterError as error:
            _log.warning("Dataset %024x: parts of unfinished uploads stay in its bucket: %s", dataset_id, error)
            given_up = datetime.now(UTC) - _TRIED_FOR
            forgotten -= {planned.id for planned in begun if planned.expires_at > given_up}
    async with place.pool.connection() as conn:
        await quotas.release_places(conn, [planned.hold_id for planned in uploads if planned.hold_id is not None])
        await planned_uploads.forget(conn, sorted(forgotten))
