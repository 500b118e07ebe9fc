"""People on the command line: organisations, invitations, keys, bots and the log."""

import json
import secrets
from collections.abc import Callable

import pytest

from tests.cli.conftest import Run
from tests.conftest import RunningServer

PASSWORD = "correct horse battery staple"


@pytest.fixture
def as_somebody(run: Run, server: RunningServer, token_of: Callable[..., str]) -> Callable[..., str]:
    """Runs a command as another account; returns what it prints."""

    def act(token: str, *arguments: str) -> str:
        done = run(*arguments, alone=True, HEADWATER_URL=server.url, HEADWATER_TOKEN=token)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return act


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_organisation_from_its_making_to_its_log(run, as_somebody, token_of):
    name = f"org-{secrets.token_hex(4)}"
    ana, bob = f"ana-{name}@example.org", f"bob-{name}@example.org"
    for email in (ana, bob):
        ok(run("user", "add", email, text=PASSWORD + "\n"))
    ok(run("org", "create", name, "--owner", ana))
    assert "belongs to" in ok(run("user", "add", bob, "--org", name, "--role", "worker"))
    ok(run("user", "role", bob, "member", "--org", name))
    token = token_of(ana, PASSWORD)
    listed = json.loads(as_somebody(token, "user", "ls", "--org", name, "--json"))
    assert {member["email"]: member["role"] for member in listed} == {ana: "owner", bob: "member"}
    assert "created project" in as_somebody(token, "project", "create", f"p-{name}", "--org", name).lower()
    as_somebody(token, "user", "remove", bob, "--org", name)
    as_somebody(token, "org", "rename", name, f"{name}-new")
    mine = json.loads(as_somebody(token, "org", "ls", "--json"))
    assert (f"{name}-new", ["owner"], 1) in [(one["name"], one["roles"], one["members"]) for one in mine]
    log = json.loads(as_somebody(token, "audit", "--org", f"{name}-new", "--json"))
    assert [entry["action"] for entry in reversed(log)] == [
        "organization.created",
        "member.added",
        "member.changed",
        "project.created",
        "member.removed",
        "organization.renamed",
    ]
    assert "member.removed" in as_somebody(token, "audit", "--org", f"{name}-new", "--limit", "3")


def test_an_organisation_forbids_deletes_and_allows_them_again(run):
    name = f"org-{secrets.token_hex(4)}"
    ok(run("user", "add", f"ana-{name}@example.org", text=PASSWORD + "\n"))
    ok(run("org", "create", name, "--owner", f"ana-{name}@example.org"))
    assert "No storage driver" in ok(run("org", "update", name, "--forbid-delete"))
    ok(run("org", "update", name, "--allow-delete"))
    assert run("org", "update", name).returncode == 2, "which of the two has to be said"
    log = json.loads(ok(run("audit", "--org", name, "--json")))
    assert [entry["action"] for entry in log[:2]] == [
        "organization.external-delete-left-to-drivers",
        "organization.external-delete-forbidden",
    ]


def test_somebody_of_elsewhere_is_invited_and_accepts(run, as_somebody, token_of):
    name = f"org-{secrets.token_hex(4)}"
    ana, cara, guest = (f"{who}-{name}@example.org" for who in ("ana", "cara", "guest"))
    for email in (ana, cara, guest):
        ok(run("user", "add", email, text=PASSWORD + "\n"))
    for place, owner in ((name, ana), (f"{name}-2", guest)):
        ok(run("org", "create", place, "--owner", owner))
    for email in (ana, guest):  # whom nothing joins any more
        ok(run("user", "remove", email))
    token = token_of(ana, PASSWORD)
    assert "Invited" in as_somebody(token, "user", "invite", guest, "--org", name)
    theirs = token_of(guest, PASSWORD)
    waiting = json.loads(as_somebody(theirs, "invitation", "ls", "--json"))
    assert [one["organization"] for one in waiting] == [name]
    assert name in as_somebody(theirs, "invitation", "ls")
    assert "member" in as_somebody(theirs, "invitation", "accept", waiting[0]["id"])
    as_somebody(token, "user", "invite", f"nobody-{name}@example.org", "--org", name)
    assert "Nobody" in as_somebody(theirs, "invitation", "ls")


def test_a_key_is_made_used_listed_and_revoked(run, as_somebody, server):
    name = f"key-{secrets.token_hex(4)}"
    key = ok(run("key", "create", name, "--days", "3")).strip()
    as_somebody(key, "ls")
    listed = next(found for found in json.loads(ok(run("key", "ls", "--json"))) if found["name"] == name)
    assert listed["last_used_at"] is not None
    assert key not in ok(run("key", "ls"))
    ok(run("key", "revoke", listed["id"]))
    refused = run("ls", alone=True, HEADWATER_URL=server.url, HEADWATER_TOKEN=key)
    assert refused.returncode == 1
    assert "revoked" in refused.stderr


def test_a_bot_is_made_used_and_deleted(run, as_somebody, server):
    project = f"p-{secrets.token_hex(4)}"
    ok(run("project", "create", project))
    key = ok(run("bot", "create", "importer", "--project", project)).strip()
    assert project in as_somebody(key, "ls")
    bot = json.loads(ok(run("bot", "ls", "--project", project, "--json")))[0]["email"]
    second = ok(run("key", "create", "second", "--bot", bot)).strip()
    assert "second" in ok(run("key", "ls", "--bot", bot))
    assert project in as_somebody(second, "ls")
    ok(run("bot", "delete", "importer", "--project", project))
    for one in (key, second):
        assert run("ls", alone=True, HEADWATER_URL=server.url, HEADWATER_TOKEN=one).returncode == 1
    assert "no bot" in run("bot", "delete", "importer", "--project", project).stderr
