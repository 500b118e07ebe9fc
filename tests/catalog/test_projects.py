"""Projects, datasets and commands: who sees them, and who may do what."""

import pytest

from headwater.catalog import accounts, commands, datasets, organizations, projects, rights
from headwater.errors import BadRequest, Conflict, Forbidden, NotFound
from tests.work.world import make_dataset

ROLES = ["owner", "developer", "annotationManager", "annotator"]
RIGHTS = {
    "read": ROLES,
    "read_notices": ["owner", "developer", "annotationManager"],
    "annotate": ROLES,
    "write_items": ["owner", "developer", "annotationManager"],
    "sync": ["owner", "developer"],
    "manage_datasets": ["owner", "developer"],
    "manage_recipes": ["owner", "developer"],
    "manage_drivers": ["owner", "developer"],
    "manage_bots": ["owner", "developer"],
    "manage_project": ["owner"],
}


async def person(conn, name: str):
    return await accounts.create_account(conn, email=f"{name}@example.com", password="correct horse")


@pytest.fixture
async def dataset(conn):
    return await make_dataset(conn)


@pytest.fixture
async def command_id(conn, dataset):
    return await commands.start_command(
        conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="SyncDataset", spec={}, creator_id=None
    )


async def questions(conn, caller, dataset, command_id, right):
    yield projects.get_project(conn, caller, dataset.project_id, right)
    yield datasets.get_dataset(conn, caller, dataset.id, right)
    yield commands.get_command(conn, caller, command_id, right)


async def test_a_stranger_sees_nothing(conn, dataset, command_id):
    stranger = await person(conn, "stranger")
    async for question in questions(conn, stranger, dataset, command_id, "read"):
        with pytest.raises(NotFound):
            await question
    assert await projects.list_projects(conn, stranger) == []
    assert await commands.list_commands(conn, stranger) == []
    found = await datasets.find_datasets(conn, stranger, project_ids=None, name=None, offset=0, limit=10)
    assert found == ([], 0)
    with pytest.raises(NotFound):
        await projects.find_projects(conn, stranger, "anything")


async def test_a_member_of_the_organisation_sees_no_project_of_others(conn, dataset, command_id):
    colleague = await person(conn, "colleague")
    owner = await organizations.get_owner(conn)
    organization = (await organizations.list_organizations(conn, owner))[0]
    await organizations.add_member(conn, organization.id, colleague, "member")
    async for question in questions(conn, colleague, dataset, command_id, "read"):
        with pytest.raises(NotFound):
            await question
    with pytest.raises(Forbidden):
        await organizations.get_organization(conn, colleague, organization.id, "manage_members")
    with pytest.raises(Conflict):
        await organizations.add_member(conn, organization.id, colleague, "admin")


async def test_an_admin_of_the_organisation_counts_as_owner(conn, dataset, command_id):
    admin = await person(conn, "admin")
    owner = await organizations.get_owner(conn)
    organization = (await organizations.list_organizations(conn, owner))[0]
    await organizations.add_member(conn, organization.id, admin, "admin")
    async for question in questions(conn, admin, dataset, command_id, "manage_project"):
        assert (await question).role == "owner"
    await projects.set_member(conn, dataset.project_id, admin, "annotator")  # cannot lower it
    assert (await projects.get_project(conn, admin, dataset.project_id)).role == "owner"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("right", RIGHTS)
async def test_every_role_may_do_exactly_its_own(conn, dataset, command_id, role, right):
    caller = await person(conn, "caller")
    await projects.set_member(conn, dataset.project_id, caller, role)
    async for question in questions(conn, caller, dataset, command_id, right):
        if role in RIGHTS[right]:
            assert (await question).role == role
        else:
            with pytest.raises(Forbidden, match=role):
                await question
    assert await projects.remove_member(conn, dataset.project_id, caller)
    assert not await projects.remove_member(conn, dataset.project_id, caller)
    with pytest.raises(NotFound):
        await projects.get_project(conn, caller, dataset.project_id)


def test_every_right_in_a_project_is_asked_for_here():
    assert RIGHTS.keys() == {right for right, rule in rights.RULES.items() if rule.scope == "project"}


ORGANIZATION_RIGHTS = {
    "owner": {
        "read_organization", "create_project", "use_integrations", "manage_integrations", "manage_members",
        "manage_organization", "read_audit", "read_quota",
    },
    "admin": {
        "read_organization", "create_project", "use_integrations", "manage_integrations", "manage_members",
        "read_quota",
    },
    "member": {"read_organization", "create_project"},
    "worker": {"read_organization"},
    "operator": {
        "read_organization", "manage_members", "manage_organization", "read_audit", "read_quota", "manage_quota",
        "create_organization", "create_account",
    },
}  # fmt: skip


@pytest.mark.parametrize("role", ORGANIZATION_RIGHTS)
def test_every_role_in_an_organisation_may_do_exactly_its_own(role):
    may = {right for right, rule in rights.RULES.items() if rights.may_in_organization([role], [], right)}
    assert may == ORGANIZATION_RIGHTS[role]


@pytest.mark.parametrize("role", ROLES)
def test_developers_of_any_project_may_use_integrations_and_nothing_else(role):
    may = {
        right
        for right, rule in rights.RULES.items()
        if rule.scope != "project" and rights.may_in_organization(["member"], [role], right)
    }
    more = {"use_integrations"} if role in ("owner", "developer") else set()
    assert may == ORGANIZATION_RIGHTS["member"] | more


def test_roles_are_named_as_the_sdk_names_them():
    assert [rights.checked_role(role) for role in ROLES] == ROLES
    for unknown in ("", "Owner", "admin", "engineer"):
        with pytest.raises(BadRequest, match="Roles: owner"):
            rights.checked_role(unknown)


async def test_a_role_in_one_project_is_none_in_another(conn, dataset):
    other = await make_dataset(conn)
    caller = await person(conn, "caller")
    await projects.set_member(conn, dataset.project_id, caller, "annotator")
    assert [project.id for project in await projects.list_projects(conn, caller)] == [dataset.project_id]
    found, total = await datasets.find_datasets(conn, caller, project_ids=None, name=None, offset=0, limit=10)
    assert ([one.id for one in found], total) == ([dataset.id], 1)
    found = await datasets.find_datasets(conn, caller, project_ids=[other.project_id], name=None, offset=0, limit=10)
    assert found == ([], 0)


async def test_a_deleted_project_is_out_of_sight_with_all_it_has(conn, dataset, command_id):
    owner = await organizations.get_owner(conn)
    project = await projects.get_project(conn, owner, dataset.project_id)
    binaries = await datasets.get_binaries(conn, project.id)
    assert sorted(await projects.delete_project(conn, project)) == sorted([binaries.id, dataset.id])
    async for question in questions(conn, owner, dataset, command_id, "read"):
        with pytest.raises(NotFound):
            await question
    again = await projects.create_project(conn, owner, project.name)  # its name is free
    assert again.id != project.id
    await projects.forget_project(conn, project.id)  # not while it has a dataset
    assert await datasets.find_deleted(conn, dataset.id) is not None
    for dataset_id in (dataset.id, binaries.id):
        await datasets.forget_dataset(conn, dataset_id)
    await projects.forget_project(conn, project.id)
    cursor = await conn.execute("SELECT FROM project WHERE id = %s", [project.id])
    assert await cursor.fetchone() is None


async def test_names_are_unique_where_they_are_seen(conn, dataset):
    owner = await organizations.get_owner(conn)
    for make in (
        lambda name: datasets.create_dataset(conn, owner, project_id=dataset.project_id, driver_id=None, name=name),
        lambda name: projects.create_project(conn, owner, name),
    ):
        made = await make("twice")
        with pytest.raises(Conflict):
            await make(" twice ")
        for bad in ("", "  ", "a\nb", "x" * 256):
            with pytest.raises(BadRequest):
                await make(bad)
        assert made.name == "twice"
    await datasets.delete_dataset(conn, dataset)
    again = await datasets.create_dataset(conn, owner, project_id=dataset.project_id, driver_id=None, name=dataset.name)
    with pytest.raises(Conflict):
        await datasets.update_dataset(conn, owner, again, name="twice")
    await datasets.update_dataset(conn, owner, again, metadata={"k": 1}, readonly=True)
    now = await datasets.get_dataset(conn, owner, again.id)
    assert (now.name, now.metadata, now.readonly) == (dataset.name, {"k": 1}, True)


async def test_our_own_storage_has_nothing_to_sync_with(conn, dataset):
    owner = await organizations.get_owner(conn)
    own = await datasets.create_dataset(conn, owner, project_id=dataset.project_id, driver_id=None, name="own")
    with pytest.raises(BadRequest, match="own storage"):
        await datasets.get_syncable(conn, owner, own.id)
    assert (await datasets.get_syncable(conn, owner, dataset.id)).id == dataset.id
