"""Credentials that end in the middle of a listing are renewed, whichever cloud; the sync does not notice."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from headwater.catalog.datasets import Dataset
from headwater.work import secrets
from tests import google
from tests.storage.played import Asked, Page, Played, PlayedAzure, PlayedGcs, PlayedS3
from tests.storage.test_assumed_roles import ROLE, Sts, sts
from tests.storage.test_azure_credentials import PRINCIPAL, Authority, authority
from tests.work.test_cloud_checks import driver_on
from tests.work.test_outages import dataset_of, hurried, run, tokens
from tests.work.world import World, present

__all__ = ["authority", "hurried", "sts", "tokens"]  # fixtures

pytestmark = pytest.mark.usefixtures("small_batches", "hurried")

KEYS = {f"{folder}/{number:03}" for folder in "abc" for number in range(40)}
ENDS_AT_PAGE = 3


def signer_of(request: web.Request) -> str:
    """By whose credentials: the access key id, the token, or the signature of a SAS."""
    authorization = request.headers.get("Authorization", "")
    if "Credential=" in authorization:
        return authorization.partition("Credential=")[2].partition("/")[0]
    return authorization.removeprefix("Bearer ") or request.query.get("sig", "")


@dataclass
class Door:
    """Lets in one signer at a time; who comes with the first one's credentials to the third page has been too late."""

    is_let_in: Callable[[str], bool]
    is_let_in_later: Callable[[str], bool]
    meanwhile: Callable[[], Any] | None = None  # awaited when the first credentials end
    has_changed: bool = False
    refused: int = 0
    signers: list[str] = field(default_factory=list)  # of the pages that were given

    async def __call__(self, cloud: Played, asked: Asked, page: Page) -> Page | web.StreamResponse:
        if asked.number == ENDS_AT_PAGE and not self.has_changed:
            self.has_changed = True
            if self.meanwhile is not None:
                await self.meanwhile()
        signer = signer_of(asked.request)
        if not (self.is_let_in_later if self.has_changed else self.is_let_in)(signer):
            self.refused += 1
            return cloud.refuse("expired")
        self.signers.append(signer)
        return page


def numbered(prefix: str) -> dict[str, Callable[[str], bool]]:
    """The first credentials that were lent, then any other."""
    return {
        "is_let_in": lambda signer: signer == f"{prefix}1",
        "is_let_in_later": lambda signer: signer.startswith(prefix) and signer != f"{prefix}1",
    }


def exactly(first: str, second: str) -> dict[str, Callable[[str], bool]]:
    return {"is_let_in": lambda signer: signer == first, "is_let_in_later": lambda signer: signer == second}


@pytest.fixture(params=[PlayedS3, PlayedGcs, PlayedAzure])
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    async with request.param.running() as played:
        played.objects = {key: key.encode() for key in KEYS}
        yield played


on_s3, on_gcs, on_azure = (
    pytest.mark.parametrize("cloud", [kind], indirect=True) for kind in (PlayedS3, PlayedGcs, PlayedAzure)
)


async def check(world: World, dataset: Dataset, cloud: Played, door: Door) -> None:
    cloud.bend = door
    command, scan = await run(world, dataset)
    assert (command.status, command.error, command.warning) == ("success", None, None)
    assert door.has_changed
    assert door.refused >= 1
    assert len(set(door.signers)) == 2
    assert (scan.listed, scan.created) == (len(KEYS), len(KEYS))
    assert present(await world.index(dataset)) == {"/" + key for key in KEYS}
    assert Counter((await world.events(dataset)).values()) == {1: len(KEYS)}


async def change_secret(world: World, dataset: Dataset, options: dict[str, str]) -> None:
    """As PATCH does it."""
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT integration.id, integration.organization_id
            FROM dataset
            JOIN driver ON driver.id = dataset.driver_id
            JOIN integration ON integration.id = driver.integration_id
            WHERE dataset.id = %s
            """,
            [dataset.id],
        )
        integration_id, organization_id = await cursor.fetchone()
    await secrets.change_integration(
        world.place,
        world.place.places._settings,
        world.owner,
        organization_id,
        integration_id,
        name=None,
        kind=None,
        options=options,
        metadata=None,
    )


@on_s3
async def test_a_role_whose_session_ends_is_assumed_again(world: World, cloud: Played, sts: Sts):
    options = {"key": "base-id", "secret": "base-secret", "roleArns": ROLE}
    driver = await driver_on(
        world, "aws-sts", options, "cams", cloud.url, driver_kind="s3", metadata={"stsEndpoint": sts.url}
    )
    await check(world, await dataset_of(world, driver), cloud, Door(**numbered("lent-")))
    assert len(sts.asked) < 8


@on_s3
async def test_a_session_token_replaced_in_the_vault_is_taken_over(world: World, cloud: Played):
    first = {"key": "first-id", "secret": "first-secret", "sessionToken": "first-token"}
    second = {"key": "second-id", "secret": "second-secret", "sessionToken": "second-token"}
    dataset = await dataset_of(world, await driver_on(world, "s3", first, "cams", cloud.url))
    door = Door(**exactly("first-id", "second-id"), meanwhile=lambda: change_secret(world, dataset, second))
    await check(world, dataset, cloud, door)


@on_gcs
async def test_a_token_of_a_service_account_is_lent_anew(world: World, cloud: Played, tokens: google.GoogleTokens):
    tokens.asked.clear()
    options = {"content": google.key_file(token_uri=tokens.token_uri)}
    dataset = await dataset_of(world, await driver_on(world, "gcs", options, "cams", cloud.url))
    await check(world, dataset, cloud, Door(**numbered("token-")))


@on_azure
async def test_a_token_of_a_service_principal_is_lent_anew(world: World, cloud: Played, authority: Authority):
    driver = await driver_on(world, "azureblob", PRINCIPAL, "cams", cloud.url, metadata={"authority": authority.url})
    await check(world, await dataset_of(world, driver), cloud, Door(**numbered("token-")))


def sas(signature: str) -> dict[str, str]:
    return {"key": "cameras", "secret": f"sv=2024-11-04&sr=c&sp=rl&sig={signature}"}


@on_azure
@pytest.mark.parametrize("kind", ["azureblob", "azureDatalakeGen2"])
async def test_a_sas_replaced_in_the_vault_is_taken_over(world: World, cloud: Played, kind: str):
    dataset = await dataset_of(world, await driver_on(world, kind, sas("first"), "cams", cloud.url))
    door = Door(**exactly("first", "second"), meanwhile=lambda: change_secret(world, dataset, sas("second")))
    await check(world, dataset, cloud, door)


@on_azure
async def test_a_sas_replaced_after_the_sync_failed_lets_the_next_one_end_well(world: World, cloud: Played):
    dataset = await dataset_of(world, await driver_on(world, "azureblob", sas("first"), "cams", cloud.url))
    door = Door(**exactly("first", "second"))
    cloud.bend = door
    command, _ = await run(world, dataset)
    assert command.status == "failed"
    assert "SAS" in command.error
    assert "first" not in command.error
    await change_secret(world, dataset, sas("second"))
    command, scan = await run(world, dataset)
    assert (command.status, scan.state) == ("success", "done")
    assert present(await world.index(dataset)) == {"/" + key for key in KEYS}
    assert Counter((await world.events(dataset)).values()) == {1: len(KEYS)}
