"""`headwater sdk`: the Python lines that point dtlpy at a server."""

from headwater.cli import options
from headwater.cli.environment import ClientEnvironment
from headwater.cli.server_file import read_server_file

_LOGIN = 'dl.login_m2m(email="…", password="…")  # or: dl.login_token("…"), printed by: headwater token'


def sdk_command(data_dir: options.ServerDataDir = None) -> None:
    """Print the Python lines that point the dtlpy SDK at this server.

    Example: headwater sdk > connect.py
    """
    url = ClientEnvironment().url if data_dir is None else None
    settings = options.settings_with(data_dir)
    url = url or read_server_file(settings.data_dir) or f"http://{settings.host}:{settings.port}"
    print(sdk_snippet(url))  # noqa: T201 - to be pasted


def sdk_snippet(url: str, login: str = _LOGIN) -> str:
    url = url.rstrip("/")
    verify = url.startswith("https://")
    return f"""\
import dtlpy as dl

dl.add_environment(
    environment="{url}/api/v1",
    alias="headwater",
    gate_url="{url}",
    url="{url}/",
    verify_ssl={verify},
)
dl.setenv("headwater")
{login}"""
