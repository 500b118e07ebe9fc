"""What has to be known to hand out the bytes of an item: who asks, whether they may, and where the bytes lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import accounts, api_keys, rights
from headwater.errors import Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for the bytes of an item, as its token says who sent it."""

    item_id: int
    account_id: int
    key_id: int | None  # of an API key
    issued_at: float  # seconds since 1970: when a token that is no API key was made


@dataclass(frozen=True, slots=True)
class Kept:
    """An item, as far as its bytes are concerned, and where they are kept."""

    asked_by_id: int  # the account that may read it
    id: int
    dataset_id: int
    path: str
    object_key: str | None
    size_bytes: int
    mime_type: str | None
    missing_since: datetime | None
    thumbnail_type: str | None
    thumbnail_id: int | None
    origin_dataset_id: int | None
    is_link: bool
    driver_id: int | None  # None: in our own storage
    driver_changed_at: datetime | None  # it, or its integration
    keeps_thumbnails: bool  # its bucket may be written to

    @property
    def key(self) -> str:
        """As `Item.key`."""
        return self.path[1:] if self.object_key is None else self.object_key


# One row for each request, in their order: what there is of its account, its key, the item and the role.
_FIND = """
SELECT
    account.id IS NOT NULL, account.tokens_valid_after > to_timestamp(asked.issued_at), api_key.id IS NOT NULL,
    api_key.last_used_at IS NULL OR api_key.last_used_at < now() - interval '5 minutes',
    CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END,
    item.id, item.dataset_id, item.path, item.object_key, item.size_bytes, item.mime_type, item.missing_since,
    item.thumbnail_type, item.thumbnail_id, item.origin_dataset_id, item.link IS NOT NULL, dataset.driver_id,
    greatest(driver.updated_at, integration.updated_at), driver.read_only IS NOT TRUE
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::float8[])
    WITH ORDINALITY AS asked (item_id, account_id, key_id, issued_at, number)
LEFT JOIN account ON account.id = asked.account_id AND account.deleted_at IS NULL
LEFT JOIN api_key
    ON api_key.id = asked.key_id AND api_key.account_id = account.id AND api_key.expires_at > now()
LEFT JOIN item ON item.id = asked.item_id
LEFT JOIN dataset ON dataset.id = item.dataset_id AND dataset.deleted_at IS NULL
LEFT JOIN project ON project.id = dataset.project_id AND project.deleted_at IS NULL
LEFT JOIN member ON member.organization_id = project.organization_id AND member.account_id = account.id
LEFT JOIN project_member ON project_member.project_id = project.id AND project_member.account_id = account.id
LEFT JOIN driver ON driver.id = dataset.driver_id
LEFT JOIN integration ON integration.id = driver.integration_id
ORDER BY asked.number
"""


async def find_kept(conn: AsyncConnection[Any], asked: Sequence[Asked]) -> list[Kept | Exception]:
    """For each request what it asked for, or why it may not have it: Unauthorized, Forbidden, or NotFound.

    In one statement, which answers `api_keys.get_holder` or `accounts.get_bearer`, `datasets.get_dataset` and
    `items.find_item` together. The use of keys is noted.
    """
    cursor = await conn.execute(
        _FIND,
        [
            [one.item_id for one in asked],
            [one.account_id for one in asked],
            [one.key_id for one in asked],
            [one.issued_at for one in asked],
        ],
    )
    rows = await cursor.fetchall()
    answers = [_answer(one, *row) for one, row in zip(asked, rows, strict=True)]
    used = {one.key_id for one, row in zip(asked, rows, strict=True) if row[2] and row[3]}
    if used:
        await api_keys.note_use(conn, sorted(filter(None, used)))
    return answers


def _answer(
    asked: Asked,
    has_account: bool,
    is_called_in: bool | None,
    has_key: bool,
    _is_to_be_noted: bool,
    role: rights.Role | None,
    *kept: Any,
) -> Kept | Exception:
    if asked.key_id is not None and not has_key:
        return api_keys.revoked()
    if not has_account:
        return accounts.no_longer_there()
    if asked.key_id is None and is_called_in:
        return accounts.called_in()
    if role is None:
        return NotFound(f"No item with id {asked.item_id:024x}.")
    try:
        rights.require(role, "read")
    except Forbidden as error:
        return error
    return Kept(asked.account_id, *kept)
