"""Integrations: what they take, and where their secrets are."""

import pytest

from headwater.catalog import audit, drivers, integrations, organizations, secrets
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.vault.local import VaultError
from tests.opened import open_secret
from tests.vault.test_local import vault_of
from tests.work.world import make_dataset, make_project

VAULT = vault_of(b"v" * 32)
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
    assert await open_secret(conn, VAULT, made.id) == OPTIONS
    with pytest.raises(VaultError):
        await open_secret(conn, vault_of(b"w" * 32), made.id)


async def test_a_secret_moved_to_another_integration_does_not_open(conn, home):
    made, other = await make(conn, home), await make(conn, home, "other")
    await conn.execute(
        "UPDATE integration SET secret_id = (SELECT secret_id FROM integration WHERE id = %s) WHERE id = %s",
        [made.id, other.id],
    )
    with pytest.raises(VaultError):
        await open_secret(conn, VAULT, other.id)


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
        await integrations.delete_integration(conn, owner, made)
    assert await open_secret(conn, VAULT, made.id) == OPTIONS
    await drivers.delete_driver(conn, driver)
    cursor = await conn.execute("SELECT count(*) FROM secret")
    before = (await cursor.fetchone())[0]
    await integrations.delete_integration(conn, owner, made)
    cursor = await conn.execute("SELECT count(*) FROM secret")
    assert (await cursor.fetchone())[0] == before - 1
    with pytest.raises(NotFound):
        await integrations.get_integration(conn, organization_id, made.id)
    with pytest.raises(NotFound):
        await open_secret(conn, VAULT, made.id)


async def changed(conn, home, made, secret=None, **given):
    """As work/secrets.py does it, on one connection."""
    none = dict.fromkeys(("name", "kind", "options", "metadata"))
    change = integrations.check_change(made, **none | given)
    secret_id = None
    if change.secret:
        kept = await VAULT.keep(change.secret, owner=integrations.owner_of(made.id))
        secret_id = await secrets.insert(conn, VAULT, secrets.Reserved(), kept)
    await integrations.change_integration(conn, home[0], made, change, secret_id)
    return await integrations.get_integration(conn, home[1], made.id)


async def test_every_change_of_a_secret_is_seen_by_its_time_even_within_one_transaction(conn, home):
    made = await make(conn, home)
    times = [made.updated_at]
    for number in range(5):
        options = OPTIONS | {"secret": f"the-{number}th-secret"}
        times.append((await changed(conn, home, made, options=options)).updated_at)
        assert await open_secret(conn, VAULT, made.id) == options
    assert times == sorted(set(times))
    assert await integrations.changed_at(conn, made.id) == times[-1]
    assert await integrations.changed_at(conn, made.id + 1_000_000) is None


async def test_options_replace_the_secret_whole_and_what_is_not_given_stays(conn, home):
    made = await make(conn, home)
    assert (await changed(conn, home, made, name="renamed")).metadata == {"k": 1}
    assert await open_secret(conn, VAULT, made.id) == OPTIONS
    after = await changed(conn, home, made, options={"key": "k", "secret": "without-a-token"}, metadata={})
    assert (after.name, after.kind, after.metadata) == ("renamed", "s3", {})
    assert await open_secret(conn, VAULT, made.id) == {"key": "k", "secret": "without-a-token"}
    cursor = await conn.execute("SELECT count(*) FROM secret")
    assert (await cursor.fetchone())[0] == 1


async def test_a_kind_that_is_made_empty_gets_its_options_later(conn, home):
    made = await make(conn, home, "trust", kind="aws-cross", options={})
    assert not made.has_secret
    with pytest.raises(BadRequest, match="roleArn"):
        integrations.check_change(made, name=None, kind=None, options={}, metadata=None)
    options = {"roleArn": "arn:aws:iam::1:role/x"}
    assert (await changed(conn, home, made, options=options)).has_secret
    assert await open_secret(conn, VAULT, made.id) == options


@pytest.mark.parametrize(("given", "told"), [
    ({"kind": "gcs"}, "never changes"),
    ({"name": " "}, "1 to 255"),
    ({"options": {"key": "k"}}, "takes the options"),
    ({"options": {"key": "k", "secret": "hush-hush", "hush": "x"}}, "takes the options"),
    ({"metadata": {"a": "hush-hush"}, "options": {"key": "k", "secret": "hush-hush"}}, "looks like a secret"),
])  # fmt: skip
async def test_a_change_that_is_refused_changes_nothing_and_repeats_no_value(conn, home, given, told):
    made = await make(conn, home)
    with pytest.raises(BadRequest, match=told) as error:
        await changed(conn, home, made, **given)
    assert "hush-hush" not in str(error.value)
    assert await integrations.get_integration(conn, home[1], made.id) == made


@pytest.mark.parametrize("metadata", [
    {"secret": "x"}, {"a": {"b": [{"Secret-Key": "x"}]}}, {"aws_secret_access_key": "x"}, {"sasUrl": "x"},
    {"note": "the secret is hush-hush-hush, keep it"}, {"list": ["token-token"]},
    {"endpoint": "https://user:hush@host"}, {"url": "http://[broken"}, {"long": "x" * 20_000},
])  # fmt: skip
async def test_metadata_is_shown_so_no_secret_is_taken_there(conn, home, metadata):
    with pytest.raises(BadRequest) as told:
        integrations.check_new(name="n", kind="s3", options=OPTIONS, metadata=metadata)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize("metadata", [
    {"server": "10.0.0.1", "path": "/share", "provider": "self-managed", "authMethod": "mount"},
    {"endpoint": "https://s3.example.org", "region": "x", "provider": "aws", "authMethod": "key-secret"},
    {"path": "/a", "type": "DirectoryOrCreate", "readOnly": True}, {"account": "AKIA-visible-nowhere"},
])  # fmt: skip
async def test_metadata_of_the_sdk_is_taken(conn, home, metadata):
    assert integrations.check_new(name="n", kind="s3", options=OPTIONS, metadata=metadata).metadata == metadata


async def test_the_audit_log_names_what_was_done_and_no_value(conn, home):
    owner, organization_id = home
    made = await make(conn, home)
    await changed(conn, home, made, name="other", options={"key": "k-k-k-k-k", "secret": "hush-hush-hush"})
    await integrations.delete_integration(conn, owner, await integrations.get_integration(conn, *home[1:], made.id))
    lines = await audit.list_entries(conn, organization_id, limit=3)
    assert [(line.action, line.target) for line in reversed(lines)] == [
        ("integration.created", "s3"), ("integration.changed", "other"), ("integration.deleted", "other"),
    ]  # fmt: skip
    assert lines[1].details == {"changed": ["name", "options"], "name_before": "s3"}
    assert "hush" not in str(lines)
    assert "k-k-k" not in str(lines)


async def test_records_do_not_print_secrets(conn, home):
    new = integrations.check_new(name="n", kind="s3", options=OPTIONS, metadata={})
    change = integrations.check_change(await make(conn, home), name="m", kind=None, options=OPTIONS, metadata=None)
    kept = await VAULT.keep(OPTIONS, owner="integration:1")
    assert "hush" not in f"{new!r}{new}{change!r}{change}{kept!r}"


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
