"""`headwater schedule`: shown, set, switched off; and a sync that really starts by itself."""

import json
import time

import pytest


def told(run, *arguments: str) -> dict:
    answer = run("schedule", "shared/pics", *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.fixture(autouse=True)
def unscheduled(run, pics):
    yield
    assert run("schedule", "shared/pics", "--remove").returncode == 0


def test_a_schedule_is_set_shown_changed_and_switched_off(run):
    shown = run("schedule", "shared/pics")
    assert shown.stdout.strip() == (
        "pics has no schedule. Set one: headwater schedule 'pics' '0 3 * * *' --timezone Europe/Berlin"
    )
    shown = run("schedule", "shared/pics", "30 2 * * *", "--timezone", "Europe/Berlin")
    lines = shown.stdout.splitlines()
    assert lines[0] == "pics: 30 2 * * * Europe/Berlin"
    assert len(lines) == 4
    assert all((line.startswith("  next  ") and " 02:30 CE" in line) or " 03:00 CEST" in line for line in lines[1:])
    changed = told(run, "0 4 * * mon-fri")
    assert (changed["cron"], changed["timezone"], changed["active"]) == ("0 4 * * mon-fri", "Europe/Berlin", True)
    assert told(run, "--timezone", "UTC")["cron"] == "0 4 * * mon-fri"
    off = told(run, "--off")
    assert (off["active"], off["next_runs"], off["cron"]) == (False, [], "0 4 * * mon-fri")
    assert "switched off" in run("schedule", "shared/pics").stdout
    assert len(told(run, "--on")["next_runs"]) == 3
    assert told(run, "--remove")["cron"] is None


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["at night"], "'at night' is no cron expression. Five fields: minute, hour"),
    (["0 3 * * *", "--timezone", "Berlin"], "There is no time zone 'Berlin'."),
    (["--off"], "pics has no schedule yet. Say when: headwater schedule 'pics' '0 3 * * *'"),
    (["--off", "--on"], "Give one of --on, --off and --remove"),
    (["0 3 * * *", "--remove"], "--remove takes no times"),
])  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(run, arguments, complaint):
    answer = run("schedule", "shared/pics", *arguments)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert complaint in answer.stderr


def test_a_sync_starts_by_itself(run):
    told(run, "* * * * *")
    deadline = time.monotonic() + 120
    while (last := told(run)["last_run"]) is None:
        assert time.monotonic() < deadline
    assert (last["outcome"], last["message"]) == ("started", None)
    assert last["command_id"]
    assert "  last  " in run("schedule", "shared/pics").stdout
