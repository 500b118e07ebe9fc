"""Notices: who is told of what, what stands for a command, what was read, and that no order of commits hides one."""

from datetime import timedelta

import psycopg
import pytest

from headwater.catalog import accounts, commands, notices, organizations, outcomes, projects
from headwater.catalog.notices import Choice
from tests.work.world import make_dataset


@pytest.fixture
async def dataset(conn):
    return await make_dataset(conn)


@pytest.fixture
async def owner(conn, dataset):
    """Of the project, and the organisation's plain member."""
    return await person(conn, dataset, "owner")


async def person(conn, dataset, role):
    account = await accounts.create_account(conn, email=f"{role}-{dataset.id}@project.test", password="correct horse")
    await projects.set_member(conn, dataset.project_id, account, role)
    return account


async def begin(conn, dataset, creator=None, kind="SyncDataset"):
    return await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=kind,
        spec={},
        creator_id=None if creator is None else creator.id,
    )


async def told(conn, caller, **chosen):
    return [notice.kind for notice in await notices.list_notices(conn, caller, Choice(**chosen))][::-1]


@pytest.mark.parametrize(
    ("role", "hears"), [("owner", True), ("developer", True), ("annotationManager", True), ("annotator", False)]
)
async def test_members_hear_of_their_project_by_their_role(conn, dataset, role, hears):
    member = await person(conn, dataset, role)
    stranger = await accounts.create_account(conn, email=f"stranger-{dataset.id}@x.test", password="correct horse")
    await notices.tell_project(conn, dataset.project_id, "info", "So it is", "It is so.", dataset_id=dataset.id)
    (notice,) = await notices.list_notices(conn, member) if hears else [None]
    if notice is not None:
        assert (notice.title, notice.dataset_id, notice.dataset_name) == ("So it is", dataset.id, dataset.name)
        assert (notice.kind, notice.command_id, notice.is_current) == ("note", None, True)
    else:
        assert await notices.list_notices(conn, member) == []
    assert await notices.list_notices(conn, stranger) == []
    await projects.remove_member(conn, dataset.project_id, member)
    assert await notices.list_notices(conn, member) == []


async def test_what_owners_are_told_is_not_for_the_members_of_the_project(conn, dataset, owner):
    project = await projects.get_project(conn, owner, dataset.project_id)
    await notices.tell_owners(
        conn, project.organization_id, "warning", "For owners", "Only.", project_id=dataset.project_id
    )
    assert await notices.list_notices(conn, owner) == []
    admin = await accounts.create_account(conn, email=f"admin-{dataset.id}@x.test", password="correct horse")
    await organizations.add_member(conn, project.organization_id, admin, "admin")
    await notices.tell_project(conn, dataset.project_id, "info", "For all", "Of the project.")
    assert [notice.title for notice in await notices.list_notices(conn, admin, limit=2)] == ["For all", "For owners"]


async def test_start_and_end_of_a_command_are_one_thread(conn, dataset, owner):
    command_id = await begin(conn, dataset, owner)
    (start,) = await notices.list_notices(conn, owner)
    assert (start.kind, start.title) == (outcomes.STARTED, f"Sync of {dataset.name} began")
    assert owner.email in start.message
    assert await notices.mark_read(conn, owner, ids=[start.id]) == 1
    assert await notices.count_unread(conn, owner) == 0
    await commands.end_command(conn, command_id, "success", spec={"sync": {"created": 1200, "changed": 0, "marked": 3}})
    (end,) = await notices.list_notices(conn, owner)
    assert (end.kind, end.level, end.command_id, end.command_kind) == (
        outcomes.SUCCEEDED, "info", command_id, "SyncDataset"
    )  # fmt: skip
    assert end.message.startswith("1,200 new, 3 missing now.")
    assert await notices.count_unread(conn, owner) == 1  # the end is news to who has read of the start
    assert await told(conn, owner, history=True) == [outcomes.STARTED, outcomes.SUCCEEDED]
    await commands.end_command(conn, command_id, "failed", error="Too late.")
    assert await told(conn, owner, history=True) == [outcomes.STARTED, outcomes.SUCCEEDED]


@pytest.mark.parametrize(
    ("status", "given", "kind", "level"),
    [
        ("success", {"warning": "Look at it."}, outcomes.WARNED, "warning"),
        ("failed", {"error": "The bucket said no."}, outcomes.FAILED, "error"),
        ("timeout", {"error": "Too slow."}, outcomes.FAILED, "error"),
        ("aborted", {"error": "Somebody aborted it."}, outcomes.ABORTED, "info"),
        ("canceled", {"error": "Somebody did."}, outcomes.ABORTED, "info"),
    ],
)
async def test_every_end_of_every_kind_of_command_is_told_with_its_reason(
    conn, dataset, owner, status, given, kind, level
):
    for command_kind, noun in (("SyncDataset", "Sync"), ("ExportDataset", "Export"), ("CloneDataset", "Clone")):
        command_id = await begin(conn, dataset, owner, command_kind)
        await commands.end_command(conn, command_id, status, **given)
        found = (await notices.list_notices(conn, owner))[0]
        assert (found.kind, found.level, found.message) == (kind, level, next(iter(given.values())))
        assert found.title.startswith(f"{noun} of {dataset.name} ")


async def test_what_runs_by_itself_tells_of_changes_and_of_trouble_once_and_of_its_end(conn, dataset, owner):
    async def run(status="success", counts=None, **given):
        command_id = await begin(conn, dataset)
        await commands.end_command(conn, command_id, status, spec={"sync": counts or {"created": 0}}, **given)

    for _ in range(3):
        await run()
    assert await told(conn, owner) == []
    await run(counts={"created": 1})
    for error in ("One.", "Two.", "Three."):
        await run("failed", error=error)
    expected = [outcomes.SUCCEEDED, outcomes.FAILED]
    assert await told(conn, owner) == expected
    await conn.execute("UPDATE notice SET created_at = created_at - interval '25 hours'")
    await run("failed", error="Still.")
    await run()  # it works again
    await run()
    assert await told(conn, owner) == [*expected, outcomes.FAILED, outcomes.SUCCEEDED]
    await run(warning="Look.")
    await run(warning="Look.")
    await run("failed", error="Worse.")
    assert await told(conn, owner) == [
        *expected, outcomes.FAILED, outcomes.SUCCEEDED, outcomes.WARNED, outcomes.FAILED
    ]  # fmt: skip


async def test_a_command_that_hangs_says_so_until_it_goes_on(conn, dataset, owner):
    command_id = await begin(conn, dataset, owner)
    await commands.note_progress(conn, command_id, progress_percent=1, spec={})
    minute = timedelta(minutes=1)
    assert command_id not in await commands.mark_stalled(conn, after=minute)
    await conn.execute("UPDATE command SET updated_at = now() - interval '61 s' WHERE id = %s", [command_id])
    await commands.note_trouble(conn, command_id, "The bucket answers 503.")
    assert command_id in await commands.mark_stalled(conn, after=minute)
    assert command_id not in await commands.mark_stalled(conn, after=minute)  # it is said once
    stalled = await commands.load_command(conn, command_id)
    assert stalled.spec["stalledSince"].endswith("Z")
    notice = (await notices.list_notices(conn, owner))[0]
    assert (notice.kind, notice.level) == (outcomes.STALLED, "warning")
    assert "61 s" in notice.message
    assert "503" in notice.message
    await commands.note_progress(conn, command_id, progress_percent=2, spec={"a": 1})
    assert (await commands.load_command(conn, command_id)).spec == {"a": 1}
    await commands.end_command(conn, command_id, "success")
    assert await told(conn, owner, history=True) == [
        outcomes.STARTED, outcomes.STALLED, outcomes.RESUMED, outcomes.SUCCEEDED
    ]  # fmt: skip
    assert command_id not in await commands.mark_stalled(conn, after=timedelta(0))


async def test_one_that_waits_for_a_worker_is_given_longer(conn, dataset, owner):
    command_id = await begin(conn, dataset, owner)
    for age, is_stalled in (("9 minutes", False), ("11 minutes", True)):
        await conn.execute(
            "UPDATE command SET updated_at = now() - %s::text::interval WHERE id = %s", [age, command_id]
        )
        assert (command_id in await commands.mark_stalled(conn, after=timedelta(minutes=1))) == is_stalled
    assert "worker" in (await notices.list_notices(conn, owner))[0].message


async def test_reading_is_ones_own_and_by_choice(conn, dataset, owner):
    other = await person(conn, dataset, "developer")
    for level in ("info", "warning", "error", "info"):
        await notices.tell_project(conn, dataset.project_id, level, level, "It is so.", dataset_id=dataset.id)
    found = await notices.list_notices(conn, owner)
    assert [notice.level for notice in found] == ["info", "error", "warning", "info"]
    assert await notices.mark_read(conn, owner, until_id=found[2].id) == 2
    assert await notices.mark_read(conn, owner, until_id=found[2].id) == 0
    assert [notice.is_read for notice in await notices.list_notices(conn, owner)] == [False, False, True, True]
    assert [notice.level for notice in await notices.list_notices(conn, owner, Choice(unread=True))] == [
        "info",
        "error",
    ]
    assert await notices.mark_read(conn, owner, Choice(levels=["error"])) == 1
    assert await notices.mark_read(conn, owner, Choice(dataset_id=dataset.id)) == 1
    assert (await notices.count_unread(conn, owner), await notices.count_unread(conn, other)) == (0, 4)
    assert await notices.count_unread(conn, other, Choice(levels=["info"])) == 2
    page = await notices.list_notices(conn, other, limit=3)
    assert [*page, *await notices.list_notices(conn, other, before_id=page[-1].id)] == await notices.list_notices(
        conn, other
    )


async def test_nobody_marks_what_is_not_theirs(conn, dataset, owner):
    await notices.tell_project(conn, dataset.project_id, "info", "So it is", "It is so.")
    (found,) = await notices.list_notices(conn, owner)
    stranger = await accounts.create_account(conn, email=f"stranger-{dataset.id}@x.test", password="correct horse")
    assert await notices.mark_read(conn, stranger, ids=[found.id]) == 0
    assert await notices.mark_read(conn, stranger) == 0


async def test_notices_go_when_they_are_old(conn, dataset, owner):
    for title in ("old", "young"):
        await notices.tell_project(conn, dataset.project_id, "info", title, "It is so.")
    await conn.execute("UPDATE notice SET created_at = now() - interval '91 days' WHERE title = 'old'")
    await notices.mark_read(conn, owner)
    assert await notices.remove_old(conn, older_than=timedelta(days=90)) >= 1
    assert [notice.title for notice in await notices.list_notices(conn, owner)] == ["young"]
    assert await notices.remove_old(conn, older_than=timedelta(days=90)) == 0


async def test_a_notice_that_commits_late_is_not_missed(database_url):
    """Its number is smaller than that of one that was told before."""
    connect = psycopg.AsyncConnection.connect
    async with await connect(database_url) as late, await connect(database_url) as early:
        dataset = await make_dataset(early)
        owner = await person(early, dataset, "owner")
        await early.commit()
        cursor = await notices.now_xid(early)
        await early.commit()
        await notices.tell_project(late, dataset.project_id, "info", "late", "It is so.")
        await notices.tell_project(early, dataset.project_id, "info", "early", "It is so.")
        await early.commit()
        seen, cursor = await notices.list_since(early, owner, cursor)
        assert [notice.title for notice in seen] == ["early"]
        await early.commit()
        await late.commit()
        again, cursor = await notices.list_since(early, owner, cursor)
        assert "late" in [notice.title for notice in again]
        await early.commit()
        assert (await notices.list_since(early, owner, cursor))[0] == []
