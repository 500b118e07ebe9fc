"""Integrations: what they take, and where their secrets are."""

import pytest

from headwater.catalog import drivers, integrations, organizations
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.vault.local import LocalVault, VaultError
from tests.work.world import make_dataset, make_project

VAULT = LocalVault(b"v" * 32)
OPTIONS = {"key": "AKIA-visible-nowhere", "secret": "hush-hush-hush", "sessionToken": "token-token"}


@pytest.fixture
async def home(conn):
    owner, _ = await make_project(conn)
    return owner, (await organizations.list_organizations(conn, owner))[0].id


async def make(conn, home, name="s3", kind="s3", options=OPTIONS):
    owner, organization_id = home
    return await integrations.create_integration(
        conn, VAULT, owner, organization_id, name=name, kind=kind, options=options, metadata={"k": 1}
    )


async def test_a_secret_is_sealed_and_opens(conn, home):
    made = await make(conn, home)
    assert await integrations.open_secret(conn, VAULT, made.id) == OPTIONS
    with pytest.raises(VaultError):
        await integrations.open_secret(conn, LocalVault(b"w" * 32), made.id)


async def test_a_secret_moved_to_another_integration_does_not_open(conn, home):
    made, other = await make(conn, home), await make(conn, home, "other")
    await conn.execute(
        "UPDATE integration SET secret_id = (SELECT secret_id FROM integration WHERE id = %s) WHERE id = %s",
        [made.id, other.id],
    )
    with pytest.raises(VaultError):
        await integrations.open_secret(conn, VAULT, other.id)


async def test_no_table_holds_a_secret_in_clear(conn, home):
    """What a dump of the database would hold: every row of every table as text, and every bytea as it is."""
    await make(conn, home)
    cursor = await conn.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    dump = b""
    for (table,) in await cursor.fetchall():
        cursor = await conn.execute(f'SELECT "{table}"::text FROM "{table}"')
        dump += "\n".join(row[0] or "" for row in await cursor.fetchall()).encode()
    cursor = await conn.execute("SELECT sealed FROM secret")
    dump += b"".join(bytes(row[0]) for row in await cursor.fetchall())
    assert b"integration" not in dump or len(dump) > 1000
    for value in OPTIONS.values():
        assert value.encode() not in dump
        assert value.encode().hex().encode() not in dump


@pytest.mark.parametrize(("kind", "options"), [
    ("s3", {"key": "a"}),
    ("s3", {"key": "a", "secret": ""}),
    ("s3", {"key": "a", "secret": "hush-hush", "other": "x"}),
    ("s3", {"key": "a", "secret": ["hush-hush"]}),
    ("s3", {"key": "a", "secret": "hush-hush\n"}),
    ("hostPath", {"secret": "hush-hush"}),
    ("gcs", {"secret": "hush-hush"}),
])  # fmt: skip
async def test_options_that_are_refused_without_being_repeated(conn, home, kind, options):
    with pytest.raises(BadRequest) as told:
        await make(conn, home, kind=kind, options=options)
    assert "hush" not in str(told.value)


async def test_names_are_unique_in_an_organisation(conn, home):
    await make(conn, home)
    with pytest.raises(Conflict, match="named 's3'"):
        await make(conn, home, " s3 ")


async def test_an_integration_in_use_stays_and_one_that_goes_takes_its_secret(conn, home):
    made = await make(conn, home)
    owner, organization_id = home
    _, project_id = await make_project(conn)
    driver = await drivers.create_driver(
        conn, owner, project_id, drivers.NewDriver("d", "s3", made.id, "bucket", "", None, None, None, False)
    )
    with pytest.raises(Conflict, match="used by a storage driver"):
        await integrations.delete_integration(conn, made)
    assert await integrations.open_secret(conn, VAULT, made.id) == OPTIONS
    await drivers.delete_driver(conn, driver)
    cursor = await conn.execute("SELECT count(*) FROM secret")
    before = (await cursor.fetchone())[0]
    await integrations.delete_integration(conn, made)
    cursor = await conn.execute("SELECT count(*) FROM secret")
    assert (await cursor.fetchone())[0] == before - 1
    with pytest.raises(NotFound):
        await integrations.get_integration(conn, organization_id, made.id)
    with pytest.raises(NotFound):
        await integrations.open_secret(conn, VAULT, made.id)


async def test_a_driver_in_use_stays(conn):
    dataset = await make_dataset(conn)
    with pytest.raises(Conflict, match="used by a dataset"):
        await drivers.delete_driver(conn, await drivers.get_driver(conn, dataset.driver_id))


async def test_another_organisation_does_not_see_it(conn, home):
    made = await make(conn, home)
    with pytest.raises(NotFound):
        await integrations.get_integration(conn, home[1] + 1_000_000, made.id)


@pytest.mark.parametrize(("path", "prefix"), [
    (None, ""), ("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/"), ("a//b", "a//b/"), ("img_7", "img_7/"),
])  # fmt: skip
def test_a_folder_as_a_prefix(path, prefix):
    assert drivers.folder_prefix(path) == prefix
