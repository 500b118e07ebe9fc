"""`headwater upload`: files and folders of this machine into a dataset."""

import asyncio
import threading
from typing import Annotated, Any

import orjson
import typer
from platformdirs import user_state_path

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.output import counted, print_json, say, size
from headwater.cli.transferring import facts, link_of, report, run_async, shown
from headwater.transfer.journal import Journal
from headwater.transfer.progress import Progress
from headwater.transfer.reading import read_metadata
from headwater.transfer.scanning import Found, Scan, Unusable, printable
from headwater.transfer.sending import PARALLEL, Mode, Sending

_SHOWN_FILES = 20
_MOST_PARALLEL = 128
_OUTCOMES = {
    "created": "created",
    "overwrite": "replaced",
    "skip": "already there",
    "done before": "done by the run before",
    "failed": "failed",
}


def upload_command(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files and folders.")],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", metavar="DATASET", help="Where to: its name, PROJECT/NAME or its id.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="The folder in the dataset.")] = "/",
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", metavar="FILE", help="A JSON object: the user metadata of every file."),
    ] = None,
    sidecars: Annotated[
        bool,
        typer.Option("--sidecars", help="NAME.EXT.json beside NAME.EXT is its user metadata, and no item itself."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace items that are there; without it they are left alone.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Leave out names like .DS_Store or *.tmp; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be sent, and send nothing.")] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=_MOST_PARALLEL, help="Files under way at once.")
    ] = PARALLEL,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Upload files and folders. Run it again to go on after Ctrl-C, a crash or an outage.

    A folder brings its name along: pics becomes /FOLDER/pics/…; of pics/ only what is in it: /FOLDER/….
    Links are followed, hidden files are sent as well. Bytes go straight to the bucket where it lets us.

    Exit codes: 0 all there, 1 some failed or an error, 130 interrupted.

    Example: headwater upload pics notes.txt --dataset photos --to /2024
    """
    scan = Scan(paths, to, tuple(exclude or ()), with_sidecars=sidecars)
    scan.check()
    given = None if metadata is None else read_metadata(metadata)
    mode: Mode = "overwrite" if overwrite else "skip"
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if dry_run:
            _rehearse(client, found, scan, mode, as_json=as_json)
            return
        goal = f"{client.url}\0{found['id']}\0{mode}\0{orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode()}"
        journal = Journal(user_state_path("headwater", appauthor=False) / "uploads", goal, is_replacing=overwrite)
        run_async(_upload(client, found, scan, journal, mode, given, parallel, as_json=as_json))


async def _upload(
    client: Client,
    dataset: dict[str, Any],
    scan: Scan,
    journal: Journal,
    mode: Mode,
    metadata: dict[str, Any] | None,
    parallel: int,
    *,
    as_json: bool,
) -> None:
    progress = Progress()
    counting = threading.Thread(target=_count, args=(scan, progress), daemon=True)
    counting.start()
    journal.open()
    is_complete = False
    try:
        async with link_of(client) as link:
            sending = Sending(link, dataset["id"], scan, journal, progress, mode, metadata, parallel)
            error = await shown(sending, f"Uploading to {dataset['name']}")
        is_complete = error is None and not sending.was_stopped and not progress.failed
    finally:
        await asyncio.to_thread(journal.close, is_complete=is_complete)
    outcomes = progress.outcomes
    report(
        sending,
        error,
        f"Uploaded to {dataset['name']}: {facts(progress, _OUTCOMES)}.",
        as_json=as_json,
        more={
            "dataset_id": dataset["id"],
            "created": outcomes["created"],
            "replaced": outcomes["overwrite"],
            "done_before": outcomes["done before"],
        },
    )


def _count(scan: Scan, progress: Progress) -> None:
    """Runs beside the upload, so that it soon knows how much there is."""
    for one in scan:
        progress.files += 1
        progress.bytes += one.size_bytes if isinstance(one, Found) else 0
    progress.is_counted = True


def _rehearse(client: Client, dataset: dict[str, Any], scan: Scan, mode: Mode, *, as_json: bool) -> None:
    """What an upload would do, as far as this machine knows."""
    client.get(f"/datasets/{dataset['id']}")
    files, size_bytes = 0, 0
    examples: list[Found] = []
    unusable: list[Unusable] = []
    for one in scan:
        if isinstance(one, Unusable):
            unusable.append(one)
            continue
        files += 1
        size_bytes += one.size_bytes
        if len(examples) < _SHOWN_FILES:
            examples.append(one)
    if as_json:
        print_json(
            {
                "dataset_id": dataset["id"],
                "files": files,
                "size_bytes": size_bytes,
                "examples": [{"file": printable(one.file), "path": one.path} for one in examples],
                "failures": [{"path": one.file, "reason": one.reason} for one in unusable],
            }
        )
        return
    kept = "items that are there stay" if mode == "skip" else "items that are there are replaced"
    say(f"To be sent to {dataset['name']}: {counted(files, 'file')}, {size(size_bytes)}; {kept}.")
    for one in examples:
        say(f"  {one.path}")
    if files > len(examples):
        say(f"  … and {files - len(examples):,} more")
    for one in unusable:
        say(f"Not: {one.file}: {one.reason}")
