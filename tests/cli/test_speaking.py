"""Which server a command speaks to, accounts, and what it says when it cannot."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Connected, Run
from tests.conftest import RunningServer


def test_without_a_server_the_error_names_the_command_that_starts_one(run: Run, tmp_path: Path):
    refused = run("ls", "--data-dir", str(tmp_path), alone=True)
    assert refused.returncode == 1
    assert f"headwater serve --data-dir {tmp_path}" in refused.stderr


def test_a_server_file_that_a_killed_server_left_is_no_server(run: Run, tmp_path: Path):
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    refused = run("status", "--data-dir", str(tmp_path), alone=True)
    assert refused.returncode == 1
    assert f"headwater serve --data-dir {tmp_path}" in refused.stderr


def test_a_url_and_a_printed_token_in_the_environment_are_enough(run: Run, server: RunningServer):
    token = run("token").stdout.strip()
    done = run("user", "ls", "--json", alone=True, HEADWATER_URL=server.url, HEADWATER_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert server.email in {member["email"] for member in json.loads(done.stdout)}
    assert {"email", "role", "created_at"} == set(json.loads(done.stdout)[0])


def test_a_data_directory_on_the_command_line_counts_more_than_the_environment(run: Run):
    assert run("ls", HEADWATER_URL="http://127.0.0.1:9", HEADWATER_TOKEN="x").returncode == 0


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HEADWATER_TOKEN": "wrong"}, "not signed by this server"),
        ({}, "HEADWATER_TOKEN is not"),
        ({"HEADWATER_TOKEN": "x", "HEADWATER_URL": "http://127.0.0.1:9"}, "Check HEADWATER_URL"),
        ({"HEADWATER_TOKEN": "x", "HEADWATER_URL": "nonsense"}, "like http://HOST:PORT"),
    ],
)
def test_a_wrong_address_or_token_is_one_sentence(run: Run, server: RunningServer, environment, words: str):
    refused = run("ls", alone=True, **({"HEADWATER_URL": server.url} | environment))
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("arguments", [("sync", "nix"), ("ls", "nix"), ("status", "0" * 24)])
def test_what_is_not_there_is_named(run: Run, arguments: tuple[str, ...]):
    refused = run(*arguments)
    assert refused.returncode == 1
    assert arguments[1] in refused.stderr


def test_an_option_that_is_none_is_a_usage_error(run: Run):
    assert run("ls", "--nonsense").returncode == 2


def test_an_added_account_can_speak_and_has_its_role(
    run: Run, server: RunningServer, pics: Connected, token_of: Callable[..., str]
):
    email, password = f"{uuid.uuid4().hex[:8]}@example.org", "a good password"
    added = run("user", "add", email, "--project", "shared", "--project-role", "annotator", text=password + "\n")
    assert added.returncode == 0, added.stderr
    assert password not in added.stdout + added.stderr
    theirs = {"HEADWATER_URL": server.url, "HEADWATER_TOKEN": token_of(email, password)}
    (seen,) = json.loads(run("ls", "--json", alone=True, **theirs).stdout)
    assert (seen["name"], seen["role"]) == ("shared", "annotator")
    refused = run("connect", str(pics.folder / "deep"), "-d", "more", "-p", "shared", alone=True, **theirs)
    assert refused.returncode == 1
    assert "Only owners and admins" in refused.stderr


def test_an_account_without_a_password_is_refused(run: Run):
    refused = run("user", "add", "nobody@example.org")
    assert refused.returncode == 1
    assert "--password" in refused.stderr


def test_the_snippet_points_at_the_running_server(run: Run, server: RunningServer):
    snippet = run("sdk").stdout
    assert f'environment="{server.url}/api/v1"' in snippet
    compile(snippet, "snippet", "exec")
