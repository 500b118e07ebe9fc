"""`headwater download`: the files of a dataset into a folder of this machine."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.output import size
from headwater.cli.transferring import facts, link_of, report, run_async, shown
from headwater.errors import BadRequest
from headwater.transfer.progress import Progress
from headwater.transfer.receiving import PARALLEL, Receiving

_MOST_PARALLEL = 128
_OUTCOMES = {
    "created": "downloaded",
    "skip": "already there",
    "missing": "missing from the bucket",
    "failed": "failed",
}


def download_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder on this machine; made if absent.")],
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="Only what is in this folder and below it.")
    ] = None,
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Only what the SDK's filter finds.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Fetch everything again, and replace files that are there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be fetched, and write nothing.")] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=_MOST_PARALLEL, help="Files under way at once.")
    ] = PARALLEL,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Download the files of a dataset, in its folders. Run it again to go on after Ctrl-C, a crash or an outage.

    The item /2024/a.jpg becomes DIR/2024/a.jpg. A file that is there with the right size is kept, one with another size
    is told. Nothing is written outside DIR. Items whose object is missing from the bucket are told, and are no failure.

    Exit codes: 0 all there, 1 some failed or an error, 130 interrupted.

    Example: headwater download photos --to ./photos --folder /2024
    """
    asked = _conditions(folder, conditions)
    if to.exists() and not to.is_dir():
        raise BadRequest(f"{to} is a file. Give a folder.")
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if not dry_run:
            to.mkdir(parents=True, exist_ok=True)
        progress = Progress(bytes=0 if asked else found["counts"]["bytes"])
        run_async(_download(client, found, asked, to, progress, overwrite, parallel, dry_run=dry_run, as_json=as_json))


def _conditions(folder: str | None, conditions: str | None) -> list[dict[str, Any]]:
    """Raises BadRequest."""
    asked: list[dict[str, Any]] = []
    inner = (folder or "").strip("/")
    if inner:
        asked.append({"filename": {"$gte": f"/{inner}/", "$lt": f"/{inner}0"}})  # 0 is what follows a slash
    if conditions is not None:
        try:
            parsed = orjson.loads(conditions)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f'--filter is no JSON ({error}). For example: --filter \'{{"name": "*.jpg"}}\'') from None
        if not isinstance(parsed, dict):
            raise BadRequest('--filter has to be an object. For example: --filter \'{"name": "*.jpg"}\'')
        if parsed:
            asked.append(parsed)
    return asked


async def _download(
    client: Client,
    dataset: dict[str, Any],
    conditions: list[dict[str, Any]],
    folder: Path,
    progress: Progress,
    is_overwriting: bool,
    parallel: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    async with link_of(client) as link:
        receiving = Receiving(link, dataset["id"], conditions, folder, progress, is_overwriting, dry_run, parallel)
        error = await shown(receiving, f"Downloading {dataset['name']}")
    if dry_run:
        rest = f"To be fetched from {dataset['name']}: {progress.outcomes['created']:,} files"
        sentence = f"{rest}, {size(receiving.planned_bytes)}; {progress.outcomes['skip']:,} are there already."
    else:
        sentence = f"Downloaded {dataset['name']} to {folder}: {facts(progress, _OUTCOMES)}."
    report(
        receiving,
        error,
        sentence,
        as_json=as_json,
        more={"dataset_id": dataset["id"], "downloaded": progress.outcomes["created"]},
    )
