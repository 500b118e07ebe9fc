"""`headwater quota`: what is used by project and dataset, and the limit that the operator sets."""

import json

import pytest


@pytest.fixture
def used(run, pics) -> int:
    """How many data points there are; the limit is lifted at the end."""
    yield json.loads(run("quota", "--json").stdout)[0]["used"]
    assert run("quota", "set", "Headwater", "unlimited").returncode == 0


def test_without_a_limit_the_use_is_shown(run, used):
    shown = run("quota")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Headwater: {used} data points used, no limit." in shown.stdout
    assert "pics" in shown.stdout
    (told,) = [one for one in json.loads(run("quota", "--json").stdout) if one["organization"] == "Headwater"]
    assert (told["limit"], told["left"], told["warning"]) == (None, None, None)
    mine = {one["name"]: one for project in told["projects"] for one in project["datasets"]}
    assert mine["pics"]["used"] == 3
    assert told["used"] == sum(project["used"] for project in told["projects"])


def test_a_limit_is_set_shown_and_stops_a_sync_that_goes_on_when_it_is_raised(run, used, folder):
    for number in range(4):
        (folder / f"{number}.txt").write_text("text")
    answer = run("quota", "set", "Headwater", f"{used + 5:,}")
    assert answer.stdout.strip() == f"Headwater may have {used + 5} data points: {used} used, 5 left."
    stopped = run("connect", str(folder), "--dataset", "limited", "--project", "quotas")
    assert stopped.returncode == 1
    assert f"This needs 2 more data points; 0 of {used + 5} of organisation 'Headwater' are left." in stopped.stderr
    shown = run("quota", "--org", "Headwater")
    assert f"Headwater: {used + 5} of {used + 5} data points used, 0 left." in shown.stdout
    assert "Warning: Headwater: All data points are used" in shown.stderr
    run("quota", "set", "Headwater", str(used + 7))
    assert run("sync", "quotas/limited").returncode == 0
    assert json.loads(run("ls", "quotas/limited", "--json").stdout)["total_items"] == 6
    assert json.loads(run("quota", "--json").stdout)[0]["left"] == 0


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["set", "Headwater", "many"], "'many' is no limit. Give a number, for example 100000, or the word unlimited."),
    (["set", "Headwater", "-1"], "No such option"),
    (["set", "Nobody's", "1"], "There is no organisation"),
    (["--org", "Nobody's"], "There is no organisation"),
])  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(run, arguments, complaint):
    answer = run("quota", *arguments)
    assert answer.returncode != 0
    assert complaint in answer.stderr


def test_members_are_told_that_they_may_not_see_it(run, server, token_of):
    run("user", "add", "quota-member@headwater.test", "--password", "long enough")
    token = token_of("quota-member@headwater.test", "long enough")
    answer = run("quota", alone=True, HEADWATER_URL=server.url, HEADWATER_TOKEN=token)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "Only owners and admins of an organisation may see its quota." in answer.stderr
