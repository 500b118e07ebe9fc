"""docs/compatibility.md says the truth about the installed SDK, and the reading behind it misses no route."""

import json
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tools.sdk_routes import find_calls

ROOT = Path(__file__).resolve().parents[2]


def run_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [ROOT / ".venv-sdk/bin/python", ROOT / "tools/compatibility.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def routes(source: str) -> set[str]:
    calls = find_calls({"repositories/things.py": dedent(source)})
    return {f"{call.method} {call.path}" for call in calls}


@pytest.fixture
def openapi(tmp_path):
    """Writes an OpenAPI document with the given paths."""

    def write(paths: dict | None = None) -> Path:
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps({"paths": paths or {}}))
        return file

    return write


def test_the_page_is_up_to_date():
    run = run_tool("--check")
    assert run.returncode == 0, run.stderr


def test_a_stale_page_is_refused_with_a_sentence(tmp_path, openapi):
    page = tmp_path / "page.md"
    assert run_tool("--page", page, "--openapi", openapi()).returncode == 0
    assert run_tool("--page", page, "--openapi", openapi(), "--check").returncode == 0
    built = openapi({"/api/v1/datasets/{dataset_id}/sync": {"post": {}}})
    run = run_tool("--page", page, "--openapi", built, "--check")
    assert run.returncode == 1
    assert "is stale. Write it anew with `make reference`." in run.stderr
    assert "+| POST | `/api/v1/datasets/{}/sync` | `repositories.datasets.sync` | answered |" in run.stderr


def test_a_route_with_a_closed_list_of_values_answers_each_of_them(tmp_path, openapi):
    kind = {"name": "kind", "in": "path", "schema": {"enum": ["packages", "services"]}}
    built = openapi({"/api/v1/piper-misc/naming/{kind}/{name}": {"get": {"parameters": [kind]}}})
    page = tmp_path / "page.md"
    assert run_tool("--page", page, "--openapi", built).returncode == 0
    states = {line.split("|")[2].strip(" `"): line.split("|")[-2].strip() for line in naming_lines(page)}
    assert states == {
        "/api/v1/piper-misc/naming/packages/{}": "answered",
        "/api/v1/piper-misc/naming/services/{}": "answered",
        "/api/v1/piper-misc/naming/triggers/{}": "open",
    }


def naming_lines(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if "| `/api/v1/piper-misc/naming/" in line]


def test_a_request_that_nobody_explained_is_refused_by_file_and_line(tmp_path, openapi):
    decisions = tmp_path / "decisions.toml"
    written = (ROOT / "tools/compatibility.toml").read_text()
    entry = 'site = "repositories.commands.get"'
    assert entry in written
    decisions.write_text(written.replace(entry, 'site = "repositories.commands.gone"'))
    run = run_tool("--check", "--openapi", openapi(), "--decisions", decisions)
    assert run.returncode == 1
    assert "repositories/commands.py:" in run.stderr
    assert "GET path=url_path in repositories.commands.get" in run.stderr


def test_a_refusal_that_fits_no_route_is_an_error(tmp_path, openapi):
    decisions = tmp_path / "decisions.toml"
    written = (ROOT / "tools/compatibility.toml").read_text()
    decisions.write_text(written + '\n[[refused]]\nroutes = ["GET /api/v1/teapots"]\nwhy = "No tea."\n')
    run = run_tool("--check", "--openapi", openapi(), "--decisions", decisions)
    assert run.returncode == 1
    assert "refuses GET /api/v1/teapots, but the SDK has no such route" in run.stderr


def test_a_refused_route_that_is_answered_is_an_error(openapi):
    run = run_tool("--check", "--openapi", openapi({"/api/v1/outbox": {"post": {}}}))
    assert run.returncode == 1
    assert "POST /api/v1/outbox is answered, but tools/compatibility.toml refuses it" in run.stderr


@pytest.mark.parametrize(
    "expression",
    [
        "'/things/{}/parts'.format(self.id)",
        "'/things/{thing_id}/parts'.format(thing_id=self.id)",
        "f'/things/{self.id}/parts'",
        "'/things/%s/parts' % self.id",
        "'/things/%s/%s' % (self.id, 'parts')",
        "'/things/' + self.id + '/parts'",
        "'{}/{}/parts'.format(BASE, self.id)",
        "f'{self.BASE}/{self.id}/parts?page={self.page}'",
        "self._base + '/{}/parts'.format(self.id)",
        "urllib.parse.quote('/things/{}/parts'.format(self.id), safe='/')",
    ],
)
def test_a_path_is_read_however_it_is_spelled(expression):
    source = f"""
        BASE = '/things'
        class Things:
            BASE = '/things'
            def get(self):
                return self._client_api.gen_request(req_type='get', path={expression})
            def __init__(self):
                self._base = '/things'
    """
    assert routes(source) == {"GET /api/v1/things/{}/parts"}


def test_both_ways_of_a_condition_count():
    source = """
        def list_things(client_api, org=None, everything=False):
            if org is None:
                url = '/things'
            else:
                url = '/orgs/{}/things'.format(org)
            if everything:
                url += '?all=true'
            client_api.gen_request('GET', url)
            client_api.gen_request('post', '/a' if org else '/b')
    """
    assert routes(source) == {
        "GET /api/v1/things",
        "GET /api/v1/orgs/{}/things",
        "POST /api/v1/a",
        "POST /api/v1/b",
    }


def test_a_name_holds_what_was_assigned_last():
    source = """
        def get_thing(client_api, thing_id):
            url = '/things'
            url = f'{url}/{thing_id}'
            client_api.gen_request(req_type='get', path=url)
    """
    assert routes(source) == {"GET /api/v1/things/{}"}


def test_a_way_that_ends_before_the_request_does_not_count():
    source = """
        def get_thing(client_api, thing_id):
            url = '/things/{}'.format(thing_id)
            if thing_id is None:
                url = '/nothing'
                raise ValueError(url)
            client_api.gen_request(req_type='get', path=url)
    """
    assert routes(source) == {"GET /api/v1/things/{}"}


def test_the_second_turn_of_a_loop_is_seen():
    source = """
        def pages(client_api):
            url = '/things'
            while url:
                client_api.gen_request(req_type='get', path=url)
                url = '/pages'
    """
    assert routes(source) == {"GET /api/v1/things", "GET /api/v1/pages"}


def test_a_private_function_is_asked_with_what_its_callers_hand_in():
    source = """
        class Things:
            def __change(self, action, thing_id, method='post'):
                return self._client_api.gen_request(req_type=method, path=f'/things/{thing_id}/{action}')
            def open(self, thing_id):
                return self.__change('open', thing_id)
            def close(self, thing_id):
                return self.__change(thing_id=thing_id, action='close', method='patch')
    """
    found = routes(source)
    assert {"POST /api/v1/things/{}/open", "PATCH /api/v1/things/{}/close"} <= found
    assert "POST /api/v1/things/{}/{}" not in found


def test_uploads_and_sign_in_are_requests_too():
    source = """
        class Uploader:
            def __init__(self, dataset):
                self.remote_url = '/datasets/{}/items'.format(dataset.id)
            async def upload(self, client_api, file):
                return await client_api.upload_file_async(to_upload=file, remote_url=self.remote_url)

        def sign_in(environment, session):
            token_url = environment['gate_url'] + '/token?default'
            requests.request('POST', token_url, json={})
            session.get('{}/login'.format(environment['gate_url']))
    """
    assert routes(source) == {"POST /api/v1/datasets/{}/items", "POST /token", "GET /login"}


@pytest.mark.parametrize(
    "request_made",
    [
        "client_api.gen_request(req_type='get', path=url)",
        "client_api.gen_request(req_type='get', path=url.split('api/v1')[1])",
        "client_api.gen_request(req_type='get', path='{}?force=true')",
        "client_api.gen_request(req_type='get', path=f'{url}/parts')",
        "requests.get(url)",
        "requests.get('http://localhost:{}/jwt'.format(url))",
        "pool.submit(client_api.gen_request, 'get', '/things')",
    ],
)
def test_a_path_that_only_a_run_can_tell_is_reported_with_its_place(request_made):
    source = f"def ask(client_api, pool, url):\n    {request_made}\n"
    (call,) = find_calls({"repositories/things.py": source})
    assert call.path is None
    assert (call.site, call.file, call.line) == ("repositories.things.ask", "repositories/things.py", 2)
