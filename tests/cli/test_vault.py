"""`headwater integration` and `headwater vault`, against the session's server."""

import json
import re
import secrets
import stat

import pytest

from tests.cli.conftest import Run
from tests.conftest import RunningServer


@pytest.fixture
def name() -> str:
    return f"keys {secrets.token_hex(4)}"


def listed(run: Run) -> dict[str, dict]:
    return {found["name"]: found for found in json.loads(run("integration", "list", "--json").stdout)}


def key_of(run: Run) -> str:
    return json.loads(run("vault", "status", "--json").stdout)["current_key"]


def test_an_integration_is_made_once_changed_and_deleted_with_secrets_from_elsewhere(run: Run, name, tmp_path):
    (tmp_path / "secret.txt").write_text("from-a-file\n")
    create = ["integration", "create", name, "--type", "s3", "--option", "key=AKIA", "--metadata", "region=here"]
    made = run(*create, "--option", "secret=-", text="from-the-input\n")
    assert made.returncode == 0, made.stderr
    first = listed(run)[name]
    assert first["metadata"] == {"region": "here"}
    again = run(*create, "--option", "secret=env:MINE", MINE="from-the-input")
    assert first["id"] in again.stdout, again.stderr
    other = run(*create, "--option", f"secret=@{tmp_path / 'secret.txt'}")
    assert other.returncode == 1
    assert "another integration named" in other.stderr
    changed = run("integration", "update", name, "-o", "key=AKIA", "-o", f"secret=@{tmp_path / 'secret.txt'}")
    assert changed.returncode == 0, changed.stderr
    assert listed(run)[name]["updatedAt"] > first["updatedAt"]
    assert run(*create, "--option", "secret=from-a-file").returncode == 0
    assert run("integration", "update", first["id"], "--name", f"{name}!", "-m", "region=there").returncode == 0
    assert listed(run)[f"{name}!"]["metadata"] == {"region": "there"}
    assert run("integration", "delete", f"{name}!").returncode == 0
    assert f"{name}!" not in listed(run)
    everything = "".join(result.stdout + result.stderr for result in (made, again, other, changed))
    assert not re.search("from-the-input|from-a-file", everything)


@pytest.mark.parametrize(("arguments", "told"), [
    (["create", "n", "--type", "s3", "--option", "hush-hush"], "NAME=VALUE"),
    (["create", "n", "--type", "s3", "--option", "secret=-"], "no line left"),
    (["create", "n", "--type", "s3", "--option", "secret=env:NOT_SET"], "NOT_SET"),
    (["create", "n", "--type", "s3", "--option", "secret=@/nowhere"], "/nowhere"),
    (["create", "n", "--type", "s3", "--option", "hush=hush"], "takes the options"),
    (["update", "nobody", "--name", "x"], "There is no integration"),
    (["update", "nobody"], "Say what to change"),
    (["delete", "nobody"], "There is no integration"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence_and_without_the_value(run: Run, arguments, told):
    result = run("integration", *arguments)
    assert result.returncode == 1
    assert told in result.stderr
    assert "hush-hush" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_rotation_beside_the_running_server_and_its_status(run: Run, server: RunningServer, name):
    create = ["integration", "create", name, "--type", "key_value", "-o", "key=a", "-o", "value=b"]
    assert run(*create).returncode == 0
    before = key_of(run)
    rotated = run("vault", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    assert "Back up" in rotated.stdout
    after = key_of(run)
    assert after != before
    told = json.loads(run("vault", "status", "--json").stdout)
    assert list(told["sealed_under"]) == [after]
    assert (told["vault"], told["outside"], told["unused"], told["is_rotating"]) == ("local", 0, 0, False)
    shown = run("vault", "status")
    assert after in shown.stdout
    # Opened and compared by the server that was running all along; sealed by it under the new key.
    assert run(*create).returncode == 0
    assert (
        run("integration", "create", f"{name} 2", "--type", "key_value", "-o", "key=a", "-o", "value=b").returncode == 0
    )
    assert list(json.loads(run("vault", "status", "--json").stdout)["sealed_under"]) == [after]
    file = server.data_dir / "master-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().split()) == 1
    assert file.read_text().strip() not in rotated.stdout + rotated.stderr + shown.stdout


def test_moving_needs_to_know_where(run: Run):
    result = run("vault", "move")
    assert result.returncode == 1
    assert "HEADWATER_VAULT_URL" in result.stderr


def test_settings_that_do_not_fit_are_one_sentence(run: Run):
    for given in ({"HEADWATER_VAULT_URL": "http://host"}, {"HEADWATER_MASTER_KEY": "hush-hush"},
                  {"HEADWATER_VAULT_URL": "http://user:hush-hush@host", "HEADWATER_VAULT_TOKEN": "t"}):  # fmt: skip
        result = run("vault", "status", **given)
        assert result.returncode == 1
        assert "HEADWATER_" in result.stderr or "openssl" in result.stderr
        assert "hush-hush" not in result.stderr
        assert "Traceback" not in result.stderr
