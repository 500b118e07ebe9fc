"""Cross-account integrations: the customer's account trusts this server's own identity, so no key changes hands.

First the integration is made, empty: it names the identity to trust, and for AWS an external id. Then trust is set up
in the cloud, and the integration is told what to become there; that is tried before it is kept.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from headwater.errors import BadRequest, StoreDenied
from headwater.work.clouds import Clouds

_CROSS = ("aws-cross", "gcp-cross")


async def introduce(clouds: Clouds, kind: str) -> dict[str, Any] | None:
    """What the owner of the account is to trust; None for kinds that bring a key. Raises BadRequest, StoreDenied."""
    if kind not in _CROSS:
        return None
    known = {"status": "created", "userArn": await clouds.own_name(kind)}
    # Nobody can make this server act for them by naming somebody else's role: its owner asks for this id.
    return known | ({"externalId": secrets.token_hex(16)} if kind == "aws-cross" else {})


async def prove(
    clouds: Clouds, kind: str, trust: Mapping[str, Any] | None, region: str | None, secret: Mapping[str, str]
) -> dict[str, Any] | None:
    """Becomes what the secret names, once. Raises StoreDenied with what is missing, Unavailable."""
    if kind not in _CROSS:
        return None
    known = dict(trust or {})
    external_id = known.get("externalId")
    await clouds.become(kind, secret, external_id=external_id, region=region)
    if external_id is not None and await _is_careless(clouds, kind, secret, region):
        condition = json.dumps({"StringEquals": {"sts:ExternalId": external_id}})
        raise BadRequest(
            "The role trusts this server without asking for the external id, so any other organisation here could use "
            f'it by its name. Add to its trust policy: "Condition": {condition} Then give its ARN again.'
        )
    # Google has no external id, so the account becomes known, and stays with the first organisation that proved it.
    account = {"email": secret["email"].lower()} if kind == "gcp-cross" else {}
    return known | account | {"status": "trust-established"}


async def _is_careless(clouds: Clouds, kind: str, secret: Mapping[str, str], region: str | None) -> bool:
    """Whether the role is lent to whoever names it."""
    try:
        await clouds.become(kind, secret, external_id=None, region=region)
    except StoreDenied:
        return False
    return True
