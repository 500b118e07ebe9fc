"""A new password, by the operator."""

import httpx

from tests.cli.conftest import Run
from tests.conftest import RunningServer


def test_the_operator_sets_a_password_and_the_old_one_and_its_tokens_end(run: Run, server: RunningServer, token_of):
    email = "forgetful@headwater.test"
    assert run("user", "add", email, "--password", "the old password").returncode == 0
    old = token_of(email, "the old password")
    answer = run("user", "password", email.upper(), text="Xyzzy-4711\n")
    assert answer.returncode == 0, answer.stderr
    assert "Xyzzy" not in answer.stdout + answer.stderr
    me = httpx.get(f"{server.url}/api/v1/users/me", headers={"authorization": f"Bearer {old}"}, trust_env=False)
    assert me.status_code == 401
    assert token_of(email, "Xyzzy-4711")
    body = {"username": email, "password": "the old password"}
    assert httpx.post(f"{server.url}/token", json=body, trust_env=False).status_code == 401


def test_a_password_that_cannot_be_one_or_an_account_that_is_not_there_is_told(run: Run):
    short = run("user", "password", "owner@headwater.test", text="short\n")
    assert short.returncode == 1
    assert "8 to 1024" in short.stderr
    unknown = run("user", "password", "nobody@headwater.test", text="a new password\n")
    assert unknown.returncode == 1
    assert "no account nobody@headwater.test" in unknown.stderr
    nothing = run("user", "password", "owner@headwater.test")
    assert nothing.returncode == 1
    assert "needs a password" in nothing.stderr
