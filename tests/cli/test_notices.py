"""`headwater notices`: what happened, what was read, and what happens now."""

import json
import signal
import subprocess

import pytest


@pytest.fixture
def synced(run, folder):
    """A dataset whose sync a person started, in a project of its own."""
    (folder / "a.txt").write_text("text")
    connected = run("connect", str(folder), "--dataset", "told", "--project", f"notices-{folder.parent.name}")
    assert connected.returncode == 0, connected.stderr
    return f"notices-{folder.parent.name}"


def notices(run, *arguments):
    answer = run("notices", *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_the_end_of_a_sync_is_shown_and_can_be_marked_read(run, synced):
    (found,) = notices(run, "--project", synced)
    assert (found["kind"], found["read"], found["datasetName"]) == ("command.succeeded", False, "told")
    assert "4 new." in found["message"]
    shown = run("notices", "--project", synced, "--unread", "--mark-read")
    assert "info *" in shown.stdout
    assert "Sync of told has ended. 4 new." in shown.stdout
    assert run("notices", "--project", synced, "--unread").stdout.strip() == "There is nothing to tell."
    assert [notice["read"] for notice in notices(run, "--dataset", f"{synced}/told")] == [True]
    assert notices(run, "--project", synced, "--level", "error", "--level", "warning") == []


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job starts with it ignored


def test_following_shows_what_happens_as_it_happens(run, server, synced):
    arguments = [server.headwater, "notices", "--follow", "--project", synced, "--data-dir", str(server.data_dir)]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        text=True,
        env=server.environment | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - it makes one system call
    ) as following:
        assert "Sync of told has ended" in following.stdout.readline()
        assert run("sync", f"{synced}/told").returncode == 0
        told = [following.stdout.readline() for _ in range(2)]
        assert "Sync of told began. Started by" in told[0]
        assert "Sync of told has ended. Nothing had changed." in told[1]
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--project", "nobody's"], "There is no project"),
    (["--dataset", "nobody's"], "There is no dataset"),
    (["--follow", "--mark-read"], "Give one of"),
    (["--level", "loud"], "loud"),
])  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(run, arguments, complaint):
    answer = run("notices", *arguments)
    assert answer.returncode != 0
    assert complaint in answer.stderr
