"""What a registry asks for, and where the password may go."""

import pytest

from headwater.registries.challenges import is_trusted, read_challenges, token_url


def test_challenges_are_read_with_several_schemes_in_one_header_or_many():
    bearer = 'Bearer realm="https://r.io/token?a=1",service="r, the \\"io\\"" , scope="repository:a/b:pull,push"'
    read = {"realm": "https://r.io/token?a=1", "service": 'r, the "io"', "scope": "repository:a/b:pull,push"}
    assert read_challenges([f"{bearer}, Basic realm=plain"]) == {"bearer": read, "basic": {"realm": "plain"}}
    assert read_challenges(["Negotiate", bearer, 'BASIC realm="x"']) == {
        "negotiate": {},
        "bearer": read,
        "basic": {"realm": "x"},
    }
    assert read_challenges([]) == {}


def test_the_token_url_asks_for_what_the_challenge_names():
    asked = {"realm": "https://r.io/t#x", "service": "a b", "scope": "repository:a:pull", "error": "x"}
    assert token_url(asked) == "https://r.io/t?service=a+b&scope=repository%3Aa%3Apull"
    assert token_url(asked | {"realm": "https://r.io/t?x=1"}).startswith("https://r.io/t?x=1&service=")
    assert token_url({"realm": "https://r.io/t"}) == "https://r.io/t"
    assert token_url({}) == ""


@pytest.mark.parametrize(
    ("url", "endpoint", "login_host", "expected"),
    [
        ("https://r.io/token", "https://r.io", None, True),
        ("https://R.IO/token", "https://r.io", None, True),
        ("https://r.io:5001/token", "https://r.io:5000", None, True),
        ("https://r.io/token", "http://r.io:5000", None, True),
        ("http://r.io/token", "http://r.io:5000", None, True),
        ("https://auth.r.io/token", "https://r.io", "auth.r.io", True),
        ("https://auth.r.io:5001/token", "https://r.io", "auth.r.io:5001", True),
        ("http://r.io/token", "https://r.io", None, False),
        ("http://auth.r.io/token", "https://r.io", "auth.r.io", False),
        ("https://auth.r.io:5002/token", "https://r.io", "auth.r.io:5001", False),
        ("https://evil.io/token", "https://r.io", None, False),
        ("https://r.io.evil.io/token", "https://r.io", None, False),
        ("https://evil.io/r.io", "https://r.io", None, False),
        ("https://r.io@evil.io/token", "https://r.io", None, False),
        ("https://ana@r.io/token", "https://r.io", None, False),
        ("https://evil.io\\@r.io/token", "https://r.io", None, False),
        ("https://r.io\\.evil.io/token", "https://r.io", None, False),
        ("https://evil.io#@r.io/", "https://r.io", None, False),
        (" https://r.io/token", "https://r.io", None, False),
        ("https://r.io/to ken", "https://r.io", None, False),
        ("https://[r.io/token", "https://r.io", None, False),
        ("https://r.io:port/token", "https://r.io", None, False),
        ("//r.io/token", "https://r.io", None, False),
        ("file:///etc/passwd", "https://r.io", None, False),
        ("", "https://r.io", None, False),
    ],
)
def test_the_password_goes_to_the_registry_or_to_the_host_that_is_known_to_log_in_for_it(
    url: str, endpoint: str, login_host: str | None, expected: bool
):
    assert is_trusted(url, endpoint=endpoint, login_host=login_host) is expected
