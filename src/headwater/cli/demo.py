"""`headwater demo`: a server of its own, a source connected, synced and read, and what was found."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect_as_operator
from headwater.cli.connecting import Connected, Wanted, connect_source
from headwater.cli.following import follow_preprocessing, follow_sync, reading_facts, sync_facts
from headwater.cli.listing import query_items
from headwater.cli.output import add_row, complain, console, counted, note, say, size, table, warn
from headwater.cli.sdk import sdk_snippet
from headwater.cli.server_file import read_server_file
from headwater.cli.sources import Access, Bucket, Folder, Given, Source, access_of, endpoint_of, parse_source
from headwater.errors import BadRequest, Conflict, HeadwaterError, Unavailable
from headwater.settings import Settings, default_data_dir

_PROJECT = "Demo"
_MOST_ITEMS_LOOKED_AT = 20_000
_MOST_FAILURES_SHOWN = 15
_READY_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.1
_MARK = "headwater-demo"  # the file that tells a demo's data directory
_OURS = (
    "postgres",
    "postgres.lock",
    "storage",
    "spool",
    "admin-password",
    "master-key",
    "signing-key",
    "server.json",
    "server.lock",
    "sample-files",
)


def default_demo_dir() -> Path:
    """Beside the real data directory, never in it; for root outside root's home, as that one is."""
    return default_data_dir().with_name("headwater-demo")


def demo_command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="Your own data: a folder, or what `headwater connect` takes. Without it: sample files.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when everything was shown, instead of serving.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier demo found.")] = False,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.  [default: 8080, or a free one when that is taken]")
    ] = None,
    key: options.Key = None,
    secret: options.Secret = None,
    session_token: options.SessionToken = None,
    key_file: options.KeyFile = None,
    endpoint: options.Endpoint = None,
    region: options.Region = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help=f"Where its data is kept.  [default: {default_demo_dir()}]"),
    ] = None,
) -> None:
    """Show Headwater at work: start it, connect a source, sync it, read every file, print what it found, keep serving.

    Run it again and it goes on from what it has. Your real data directory is not touched.

    Example: headwater demo ~/Pictures
    """
    folder = (data_dir or default_demo_dir()).expanduser().absolute()
    wanted = parse_source(source) if source else Folder(folder / "sample-files")
    given = Given(key, secret, session_token, key_file, endpoint, region)
    access = access_of(wanted, given) if isinstance(wanted, Bucket) else None
    _prepare(folder, is_fresh=fresh)
    if not source:
        _write_samples(folder / "sample-files")
    elif isinstance(wanted, Folder) and not wanted.path.is_dir():
        raise BadRequest(f"There is no folder {wanted}.")
    settings = demo_settings(folder, wanted, access, port)
    sys.exit(_run(settings, _Show(settings, wanted, access, is_once=once)))


def _prepare(folder: Path, *, is_fresh: bool) -> None:
    """The data directory, empty when asked for. Raises Conflict while a server runs on it."""
    url = read_server_file(folder)
    if url is not None and _answers(url):
        raise Conflict(f"Headwater runs on {folder} already, at {url}. Stop it there, or give another --data-dir.")
    if is_fresh and folder.exists():
        if not (folder / _MARK).exists():
            raise Conflict(f"{folder} is not the data directory of a demo, so --fresh will not empty it.")
        for name in _OURS:
            _remove(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port or 80)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _write_samples(folder: Path) -> None:
    from headwater.samples import write_samples  # noqa: PLC0415 - draws with Pillow

    written = write_samples(folder)
    note(f"Wrote {counted(len(written), 'sample file')} to {folder}")


def demo_settings(folder: Path, source: Source, access: Access | None, port: int | None) -> Settings:
    """The operator's own, who is also the one who names the source: its folder and its endpoint are allowed."""
    given: dict[str, Any] = {"data_dir": folder}
    base = Settings(**given)
    if isinstance(source, Folder):
        given["local_roots"] = (*base.local_roots, source.path)
    elif access is not None and access.endpoint != endpoint_of(source, None):
        given["allow_private_endpoints"] = True
    given["port"] = port if port is not None else _port_or_free(base.host, base.port)
    return Settings(**given)


def _port_or_free(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            note(f"Port {port} is taken; using a free one.")
            return 0
    return port


def _run(settings: Settings, show: "_Show") -> int:
    """The server in this process's main thread, the show beside it; its exit code."""
    from headwater.supervisor import serve  # noqa: PLC0415 - brings the whole server along

    served = serve(settings, when_ready=show.start)
    return show.exit_code or served


@dataclass(slots=True)
class _Show:
    settings: Settings
    source: Source
    access: Access | None
    is_once: bool
    exit_code: int = field(default=0, init=False)

    def start(self, url: str) -> None:
        threading.Thread(target=self._run, args=(url,), daemon=True).start()

    def _run(self, url: str) -> None:
        try:
            self._play(url)
        except HeadwaterError as error:
            complain(str(error))
            self.exit_code = 1
        except BaseException:
            self.exit_code = 1
            _stop_serving()
            raise
        if self.is_once or self.exit_code:
            _stop_serving()

    def _play(self, url: str) -> None:
        with _connect_when_ready(self.settings, url) as client:
            made = self._connect(client)
            command = follow_sync(client, made.dataset, client.post(f"/datasets/{made.dataset['id']}/sync"))
            if command["status"] != "success":
                raise Unavailable(f"The sync ended as {command['status']}. {command['error'] or ''}".strip())
            note(f"Synced {made.dataset['name']}: {sync_facts(command)}.")
            dataset = follow_preprocessing(client, made.dataset, command)
            note(f"Read {made.dataset['name']}: {reading_facts(dataset['counts'])}.")
            _show_found(client, dataset, self.source)
            if command["warning"]:
                warn(command["warning"])
            _show_way_on(self.settings, url, dataset, is_once=self.is_once)

    def _connect(self, client: Client) -> Connected:
        """Two sources may have the same name: the second gets a number."""
        names = (self.source.label if number == 1 else f"{self.source.label} ({number})" for number in range(1, 100))
        for name in names:
            try:
                return connect_source(client, Wanted(self.source, self.access), name, _PROJECT)
            except Conflict:
                continue
        raise Conflict(f"Too many demo datasets are named {self.source.label}. Begin anew with --fresh.")


def _stop_serving() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _connect_when_ready(settings: Settings, url: str) -> Client:
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            return connect_as_operator(settings, url, start_hint="It did not start; see above.")
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_EVERY_S)


def _show_found(client: Client, dataset: dict[str, Any], source: Source) -> None:
    conditions: list[dict[str, Any]] = [{"hidden": False}, {"type": "file"}]
    items, _ = query_items(client, dataset["id"], conditions, limit=_MOST_ITEMS_LOOKED_AT)
    systems = [item["metadata"]["system"] for item in items]
    counts = dataset["counts"]
    thumbnails = sum("thumbnailId" in system for system in systems)
    shown = table("Found", "Number", "Size", numbers=("Number", "Size"), title=f"\n{dataset['name']} ({source})")
    by_type = Counter(system.get("mimetype") or "unknown" for system in systems)
    sizes: Counter[str] = Counter()
    for system in systems:
        sizes[system.get("mimetype") or "unknown"] += system.get("size") or 0
    for mime_type, number in by_type.most_common():
        add_row(shown, mime_type, f"{number:,}", size(sizes[mime_type]))
    shown.add_section()
    add_row(shown, "all items", f"{counts['items']:,}", size(counts["bytes"]))
    add_row(shown, "thumbnails made", f"{thumbnails:,}", "")
    add_row(shown, "could not be read", f"{counts['failed']:,}", "")
    if counts["missing"]:
        add_row(shown, "missing from the source", f"{counts['missing']:,}", "")
    console.print(shown)
    if counts["items"] > len(items):
        say(f"Types and thumbnails are counted among the first {len(items):,} items.")
    _show_unreadable([item for item in items if _etl(item).get("state") == "failed"], counts["failed"])
    if thumbnails:
        say(f"The thumbnails are in {source}/.dataloop/, a hidden folder; nothing else there was changed.")
    denied = [_etl(item)["thumbnail"]["message"] for item in items if "thumbnail" in _etl(item)]
    if denied:
        warn(f"{counted(len(denied), 'thumbnail')} could not be stored. {denied[0]}")
    if counts["waiting"]:
        warn(f"{counted(counts['waiting'], 'file')} still wait to be read.")


def _etl(item: dict[str, Any]) -> dict[str, Any]:
    return item["metadata"]["system"].get("etl") or {}


def _show_unreadable(failed: list[dict[str, Any]], total: int) -> None:
    if not failed:
        return
    shown = table("Could not be read", "Reason", "Why")
    for item in failed[:_MOST_FAILURES_SHOWN]:
        add_row(shown, item["filename"], _etl(item).get("reason") or "", _etl(item).get("message") or "")
    console.print(shown)
    if total > _MOST_FAILURES_SHOWN:
        say(f"… and {total - _MOST_FAILURES_SHOWN:,} more: headwater status tells them by reason.")


def _show_way_on(settings: Settings, url: str, dataset: dict[str, Any], *, is_once: bool) -> None:
    password = _password(settings)
    say()
    say(f"Server    {url}  (API: {url}/api/v1/docs)")
    say(f"Login     {settings.admin_email}")
    say(f"Password  {password or 'the one it was first started with'}")
    say(f"Data      {settings.data_dir}")
    say()
    say("Paste this into Python (pip install dtlpy):")
    say()
    login = f'dl.login_m2m(email="{settings.admin_email}", password="{password or "…"}")'
    say(sdk_snippet(url, login))
    say(f'dataset = dl.projects.get(project_name="{_PROJECT}").datasets.get(dataset_name="{dataset["name"]}")')
    say("for item in dataset.items.list().all():")
    say("    print(item.filename, item.mimetype)")
    say()
    say(f"Or look around: {sys.argv[0]} ls {_PROJECT} --data-dir {settings.data_dir}")
    if not is_once:
        say("Serving. Ctrl-C ends it; run the demo again to go on.")


def _password(settings: Settings) -> str | None:
    """The demo's own: made for it, kept in its data directory, and of use on this machine alone."""
    try:
        return (settings.data_dir / "admin-password").read_text().strip()
    except OSError:
        return None
