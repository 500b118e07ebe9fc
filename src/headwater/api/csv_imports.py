"""CSV imports: a file is sent, a command makes an item of each row, and the verdicts are read as a CSV file."""

from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from headwater import ids
from headwater.api.caller import Base, Caller, CommandId, Connection, DatasetId, ServerDep, needs
from headwater.catalog import commands, datasets, projects
from headwater.errors import BadRequest, NotFound
from headwater.wire import commands as wire
from headwater.work import csv_import
from headwater.work.csv_import import NewImport

router = APIRouter(prefix="/datasets", tags=["CSV imports"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@router.post("/{dataset_id}/imports/csv", openapi_extra=needs("write_items") | _BODY)
async def import_csv(
    dataset_id: DatasetId,
    request: Request,
    response: Response,
    caller: Caller,
    server: ServerDep,
    base: Base,
    name: Annotated[str, Query(description="Of the file; its items go into a folder of this name.")] = "",
    folder: Annotated[str, Query(description="Where its items go instead.")] = "",
    encoding: Annotated[str, Query(description="utf-8, cp949, …; found out when it is not said.")] = "",
    separator: Annotated[str, Query(description="One of , ; | and tab; found out when it is not said.")] = "",
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only tell what would become of each row.")] = False,
) -> wire.CommandJson:
    """Send the file as the body, or as the part `file` of a form. Answers with the command once the file has come.

    The same file again goes on with an import that was aborted or failed, and adds nothing twice; the header
    x-import-op says `created` or `resumed`. At the end `spec.import` has the counts, and the results every verdict.
    """
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    file_name, chunks = await _file_of(request)
    new = NewImport(
        name=_checked_name(name or file_name),
        folder=folder,
        encoding=csv_import.check_encoding(encoding) if encoding else None,
        separator=csv_import.check_separator(separator) if separator else None,
        is_dry_run=dry_run,
        most_bytes=server.settings.csv_bytes,
    )
    try:
        command_id, is_new = await csv_import.request_import(server.place, dataset, caller, new, chunks)
    except MultipartError as error:
        raise BadRequest(f"The form is not well-formed or broke off: {error}. Send it again.") from None
    response.headers["x-import-op"] = "created" if is_new else "resumed"
    async with server.place.pool.connection() as conn:
        await projects.record(
            conn,
            caller,
            dataset.project_id,
            "items.imported",
            dataset.name,
            id=ids.to_wire(dataset.id),
            command=ids.to_wire(command_id),
            file=new.name,
        )
        return wire.command(await commands.load_command(conn, command_id), base)


@router.post("/{dataset_id}/imports/{command_id}/resume", openapi_extra=needs("write_items"))
async def resume_import(
    dataset_id: DatasetId, command_id: CommandId, caller: Caller, conn: Connection, base: Base
) -> wire.CommandJson:
    """Go on with an import that was aborted or failed, behind the last row that has a verdict."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    await csv_import.resume_import(conn, dataset, command_id)
    return wire.command(await commands.load_command(conn, command_id), base)


@router.get(
    "/{dataset_id}/imports/{command_id}/results",
    openapi_extra=needs("read"),
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def read_results(
    dataset_id: DatasetId, command_id: CommandId, caller: Caller, server: ServerDep
) -> StreamingResponse:
    """The verdicts so far: row, name, outcome (created, skipped, refused), column, reason, item_id.

    Row 1 is the header's. A cell that a spreadsheet would run as a formula has a quote in front.
    """
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "read")
        found = await csv_import.get_import(conn, dataset, command_id)
    if found.is_dropped:
        raise NotFound(f"The verdicts on {found.name} are kept no longer. Send the file again.")
    return StreamingResponse(
        csv_import.open_results(server.place.places, found),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="results-{ids.to_wire(command_id)}.csv"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _checked_name(name: str) -> str:
    """Raises BadRequest."""
    last = PurePosixPath(name.replace("\\", "/")).name.strip()
    if not last:
        raise BadRequest("name: say what the file is called, such as ?name=photos.csv.")
    if not last.isprintable() or len(last) > 255:
        raise BadRequest("name: a file's name has at most 255 characters, all of them printable.")
    return last


async def _file_of(request: Request) -> tuple[str, AsyncIterator[bytes]]:
    """What a form calls the file ('' outside of one), and its bytes. Raises BadRequest, MultipartError."""
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        return "", request.stream()
    if not options.get("boundary"):
        raise BadRequest("The content type multipart/form-data has to name its boundary.")
    events = _parsed(request.stream(), options["boundary"])
    try:
        async for event in events:
            if isinstance(event, MultipartSegment) and event.name == "file":
                return event.filename or "", _part(events)
    except MultipartError as error:
        raise BadRequest(f"The form is not well-formed or broke off: {error}. Send it again.") from None
    raise BadRequest("The form has no part named file.")


async def _parsed(stream: AsyncIterator[bytes], boundary: str) -> AsyncIterator[Any]:
    """Segments, chunks of bytes, and None at the end of each segment. Raises MultipartError."""
    with PushMultipartParser(boundary, max_segment_count=32) as parser:
        async for chunk in stream:
            for event in parser.parse(chunk):
                yield event


async def _part(events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """The bytes of the part that has begun. Raises MultipartError when they end before the closing boundary."""
    is_open = True
    async for event in events:
        if event is None:
            is_open = False
        elif is_open and not isinstance(event, MultipartSegment):
            yield bytes(event)
