"""What the guide says is so: its settings, its commands, its scripts."""

import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from headwater.cli.main import app
from headwater.settings import Settings
from tests.cli.conftest import Connected
from tests.conftest import RunningServer

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guide"
SDK_PYTHON = ROOT / ".venv-sdk/bin/python"


def settings_table() -> str:
    """The table of running-a-server.md, from the settings themselves."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = {
            "data_dir": "`/var/lib/headwater` for root, else the user's own data folder",
            "decoders": "the number of processors",
            "local_roots": "none",
            "nfs_mounts": "none",
            "trusted_proxies": "none",
            "link_inner_hosts": "none",
            "oidc_email_domains": "all",
        }.get(name, "" if field.default is None else f"`{str(field.default).lower()}`")
        if isinstance(field.default, str):
            default = f"`{field.default}`"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `HEADWATER_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows)


def test_every_setting_is_in_the_guide_with_its_default_and_meaning():
    assert settings_table() in (GUIDE / "running-a-server.md").read_text(), f"Put this in:\n\n{settings_table()}"


def _commands() -> set[str]:
    group = typer.main.get_command(app)
    names: set[str] = set()
    for name, command in group.commands.items():
        names |= {f"{name} {inner}" for inner in command.commands} if hasattr(command, "commands") else {name}
    return names


def test_every_command_is_in_the_guide():
    guide = (GUIDE / "command-line.md").read_text()
    assert {name for name in _commands() if f"`headwater {name}" not in guide} == set()


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_has_an_example_in_its_help(name: str):
    command = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    assert "Example: " in (command.help or "")
    assert f"headwater {name}" in (command.help or "")


def test_commands_in_the_guide_and_the_readme_are_there():
    pages = [*GUIDE.glob("*.md"), ROOT / "README.md"]
    written = {
        found for page in pages for found in re.findall(r"(?m)^(?:\S+=\S+ )*headwater ([a-z-]+)", page.read_text())
    }
    assert written <= {name.split()[0] for name in _commands()}


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            led_to = page.parent / target if target else page
            assert led_to.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in _anchors(led_to), f"{page.name} links to {target}#{anchor}"


def test_every_page_of_the_guide_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in GUIDE.glob("*.md") if f"(docs/guide/{page.name})" not in readme] == []


def test_the_script_of_the_guide_runs_as_it_is_written(server: RunningServer, pics: Connected, tmp_path: Path):
    page = (GUIDE / "from-the-sdk.md").read_text()
    script = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    for written, here in {
        "http://127.0.0.1:8080": server.url,
        "admin@headwater.local": server.email,
        "PASSWORD": server.password,
        "Demo": pics.project,
        "sample-files": "pics",
    }.items():
        assert written in script
        script = script.replace(written, here)
    done = subprocess.run(
        [SDK_PYTHON, "-c", script],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "/one.png image/png" in done.stdout
    assert "2 wide pictures" in done.stdout
