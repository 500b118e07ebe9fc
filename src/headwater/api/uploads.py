"""Uploads as the SDK sends them: one multipart request a file, its bytes streamed, never kept whole."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from headwater.api.caller import Base, Caller, Connection, DatasetId, ServerDep, needs
from headwater.api.upload_plans import committed
from headwater.catalog import datasets, folders
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest
from headwater.wire import items as wire
from headwater.wire import uploads
from headwater.work.upload import Announced, Mode, Uploaded, batches, checked_path, upload_file
from headwater.work.upload.planned import LARGEST_BATCH_FILE_BYTES

router = APIRouter(prefix="/datasets", tags=["items"])

_LONGEST_FIELDS_BYTES = 8 * 1024 * 1024  # of one file; metadata is JSON of any shape


@router.post(
    "/{dataset_id}/items",
    openapi_extra=needs("write_items")
    | {
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["path", "file"],
                        "properties": {
                            "type": {"type": "string", "enum": ["file"]},
                            "path": {"type": "string", "description": "The full path in the dataset; before file."},
                            "metadata": {"type": "string", "description": "JSON with the keys user and system."},
                            "description": {"type": "string"},
                            "file": {"type": "string", "format": "binary"},
                        },
                    }
                },
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": ["path"],
                        "properties": {"type": {"type": "string", "enum": ["dir"]}, "path": {"type": "string"}},
                    }
                },
            }
        }
    },
)
async def add_item(
    dataset_id: DatasetId,
    request: Request,
    response: Response,
    caller: Caller,
    server: ServerDep,
    base: Base,
    mode: Annotated[Mode, Query(description="What becomes of an item that is at this path already.")] = "skip",
) -> wire.ItemJson:
    """Upload a file (multipart), or make a folder (form `type=dir&path=…`). The header x-item-op says what it did."""
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    content_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if content_type == "application/x-www-form-urlencoded":
        fields = parse_qs(_decoded("path", bytearray(await request.body())))
        async with server.place.pool.connection() as conn:
            return await _make_folder(conn, caller, dataset, fields, base)
    form = _Form(request.stream(), _boundary_of(request))
    uploaded = await _upload(server, dataset, caller, form, mode)
    response.headers["x-item-op"] = uploaded.outcome
    return _answer(uploaded, base)


async def _upload(server: Any, dataset: Dataset, caller: Any, form: "_Form", mode: Mode) -> Uploaded:
    try:
        fields = await form.read_fields()
        if fields is None:
            raise BadRequest("The upload has no file: send a part named file after the part named path.")
        user, system = _metadata(fields.get("metadata"))
        announced = Announced(
            path=checked_path(fields.get("path", "")),
            mode=mode,
            description=fields.get("description"),
            user_metadata=user,
            system_metadata=system,
        )
        return await upload_file(server.place, dataset, caller, announced, form.last_file())
    except MultipartError as error:
        raise BadRequest(f"The upload is not well-formed or broke off: {error}. Send it again.") from None


@router.post(
    "/{dataset_id}/uploads/batch",
    openapi_extra=needs("write_items")
    | {
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["path", "file"],
                        "description": "For each file path, [metadata], [description] and file, one after the other.",
                        "properties": {
                            "path": {"type": "string"},
                            "metadata": {"type": "string"},
                            "description": {"type": "string"},
                            "file": {"type": "string", "format": "binary"},
                        },
                    }
                }
            }
        }
    },
)
async def upload_batch(
    dataset_id: DatasetId,
    request: Request,
    caller: Caller,
    server: ServerDep,
    mode: Annotated[Mode, Query(description="What becomes of items that are at these paths already.")] = "skip",
) -> uploads.CommitJson:
    """Up to 1,000 small files in one request. Each is told what became of it."""
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    form = _Form(request.stream(), _boundary_of(request), most_segments=4 * uploads.MOST_FILES)
    try:
        answers = await batches.upload_batch(server.place, dataset, caller, _small_files(form, mode))
    except MultipartError as error:
        raise BadRequest(f"The batch is not well-formed or broke off: {error}. Send it again.") from None
    return uploads.CommitJson(files=[committed(answer) for answer in answers])


async def _small_files(form: "_Form", mode: Mode) -> AsyncIterator[batches.Small]:
    number = 0
    while (fields := await form.read_fields()) is not None:
        if number >= uploads.MOST_FILES:
            raise BadRequest(f"A batch has {uploads.MOST_FILES:,} files at most. Send the others in another.")
        content = bytearray()
        async for chunk in form.file():
            content += chunk
            if len(content) > LARGEST_BATCH_FILE_BYTES:
                raise BadRequest(
                    f"File {number} of the batch is larger than {LARGEST_BATCH_FILE_BYTES:,} bytes. Send it alone."
                )
        try:
            user, system = _metadata(fields.get("metadata"))
        except BadRequest as error:
            raise BadRequest(f"File {number} of the batch: {error}") from None
        announced = Announced(
            path=fields.get("path", ""),
            mode=mode,
            description=fields.get("description"),
            user_metadata=user,
            system_metadata=system,
        )
        yield batches.Small(announced, bytes(content))
        number += 1


def _boundary_of(request: Request) -> str:
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data" or not options.get("boundary"):
        raise BadRequest("Send files as multipart/form-data with the fields path and file, path first.")
    return options["boundary"]


def _metadata(text: str | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The user's and the system's; None for what is not given. Raises BadRequest."""
    if text is None:
        return None, None
    try:
        patch = wire.metadata_patch(json.loads(text))
    except (ValueError, RecursionError):
        raise BadRequest("The field metadata is not JSON.") from None
    user = None if patch.user is None else wire.merged({}, patch.user)
    return user, wire.merged({}, patch.system) or None


def _answer(uploaded: Uploaded, base: str) -> wire.ItemJson:
    """The SDK deletes the item and uploads again when the size it reads back is not the size it sent.

    An item that was kept (mode skip) may have another size: for that one answer it is told its own.
    """
    answer = wire.item(uploaded.item, base)
    answer["metadata"]["system"]["size"] = uploaded.received_bytes
    return answer


async def _make_folder(
    conn: Connection, caller: Caller, dataset: Dataset, form: dict[str, list[str]], base: str
) -> wire.ItemJson:
    """May be repeated: a folder that is there is answered as it is."""
    path = form.get("path", [""])[0].rstrip("/")
    if form.get("type") != ["dir"] or not path.strip("/"):
        raise BadRequest("A folder is made with the form fields type=dir and path=/folder.")
    path = checked_path(path)
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    folder = await folders.make_folder(conn, dataset.id, path, caller.id)
    return wire.directory(folder, dataset.project_id, base)


@dataclass(slots=True)
class _Form:
    """The parts of one multipart request as they arrive: text fields first, then the file."""

    stream: AsyncIterator[bytes]
    boundary: str
    most_segments: int = 32
    _events: AsyncIterator[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._events = self._parsed()

    async def _parsed(self) -> AsyncIterator[Any]:
        """Segments, chunks of bytes, and None at the end of each segment. Raises MultipartError."""
        with PushMultipartParser(self.boundary, max_segment_count=self.most_segments) as parser:
            async for chunk in self.stream:
                for event in parser.parse(chunk):
                    yield event

    async def read_fields(self) -> dict[str, str] | None:
        """The text fields up to the next file; None at the end."""
        fields: dict[str, str] = {}
        name, text, held_bytes = "", bytearray(), 0
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.filename is not None or event.name == "file":
                    return fields
                name, text = event.name or "", bytearray()
            elif event is None:
                fields[name] = _decoded(name, text)
            else:
                text += event
                held_bytes += len(event)
                if held_bytes > _LONGEST_FIELDS_BYTES:
                    raise BadRequest(
                        f"The field {name}, and those before it, are longer than {_LONGEST_FIELDS_BYTES} bytes."
                    )
        if fields:
            raise BadRequest("The upload has no file: send a part named file after the part named path.")
        return None

    async def file(self) -> AsyncIterator[bytes]:
        """The bytes of the file."""
        async for event in self._events:
            if event is None:
                return
            yield bytes(event)

    async def last_file(self) -> AsyncIterator[bytes]:
        """The bytes of the file. Raises MultipartError when they end before the closing boundary."""
        async for chunk in self.file():
            yield chunk
        async for _ in self._events:
            pass


def _decoded(name: str, text: bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The field {name} is not UTF-8.") from None
