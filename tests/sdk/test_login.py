"""`dl.login()` with a browser, `dl.login_m2m` when it is refused, and refreshing."""

import socket

from tests import servers
from tests.conftest import RunningServer

# A browser in a process of its own, as the SDK would start one: it opens the page, sends its form and follows.
BROWSER = """
import html, http.cookiejar, re, sys, urllib.parse, urllib.request

url, email, password = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
page = opener.open(url).read().decode()
action = urllib.parse.urljoin(url, html.unescape(re.search(r'<form method="post" action="([^"]*)"', page)[1]))
form = urllib.parse.urlencode({"email": email, "password": password}).encode()
opener.open(urllib.request.Request(action, form, {"Origin": url.partition("/login")[0]}))
"""

# What `webbrowser.open` is when the operator of the machine names a browser.
SIGN_IN = """
import os, shlex
open("browser.py", "w").write(browser)
os.environ["BROWSER"] = " ".join(map(shlex.quote, [sys.executable, "browser.py", "%s", email, password])) + " &"
"""


def test_dl_login_signs_in_with_a_browser(run_sdk, server: RunningServer):
    (port,) = servers.free_ports(1)
    found = run_sdk(
        SIGN_IN
        + """
logged_in = dl.login(callback_port=port)
answer(logged_in=logged_in, who=dl.info()["user_email"], projects=len(dl.projects.list()) >= 0,
       token=dl.client_api.token, refresh=dl.client_api.refresh_token)
        """,
        log_in=False,
        port=port,
        browser=BROWSER,
    )
    assert found["logged_in"] is True
    assert found["who"] == server.email
    assert found["projects"] is True
    log = (server.data_dir.parent / f"{server.data_dir.name}.log").read_text()
    assert found["token"] not in log
    assert found["refresh"] not in log
    assert server.password not in log
    with socket.socket() as probe:  # the SDK has closed its port again
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_expired_token_is_renewed_without_a_password(run_sdk):
    found = run_sdk(
        """
        import jwt
        before = dl.client_api.token
        refresh = dl.client_api.refresh_token
        claims = jwt.decode(before, options={"verify_signature": False}) | {"exp": 1}
        dl.client_api.token = jwt.encode(claims, "whatever", algorithm="HS256")
        dl.client_api.refresh_token = refresh
        projects = dl.projects.list()
        answer(renewed=dl.client_api.token != before, expired=dl.token_expired(), who=dl.info()["user_email"])
        """
    )
    assert found["renewed"] is True
    assert found["expired"] is False


def test_the_sdk_does_not_wait_when_there_were_too_many_failures(run_sdk):
    """It asks for tokens outside of its retries, so Retry-After holds nobody up."""
    found = run_sdk(
        """
        import requests
        asked = []
        plain = requests.request
        def counted(method, address, **given):
            asked.append(address)
            return plain(method, address, **given)
        requests.request = counted
        results = [dl.login_m2m(email="guessed@headwater.test", password="wrong password") for _ in range(12)]
        refused = plain("POST", url + "/token", json={"username": "guessed@headwater.test", "password": "x"})
        answer(results=results, asked=len(asked), status=refused.status_code, after=refused.headers["retry-after"])
        """,
        log_in=False,
    )
    assert found["results"] == [False] * 12
    assert found["asked"] == 12
    assert found["status"] == 429
    assert int(found["after"]) > 0
