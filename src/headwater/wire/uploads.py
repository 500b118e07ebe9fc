"""Uploads of many files, as our own clients send and read them. The SDK's single uploads are in `items`.

A client plans up to 1,000 files at once, does for each what the answer says, and commits up to 1,000 at once:

- `skip`: an item is there already, nothing to do;
- `put`: send the bytes with `request`, exactly its headers, then commit. A store that answers 412 or 409 has an object
  there by now that nobody knew of when this was planned: commit it all the same, the answer says what became of it;
- `parts`: ask `uploads/parts` for a request for each part of `partBytes` (the last is shorter), send them in any order,
  then commit, with the number and the ETag header of each;
- `batch`: send the bytes in `uploads/batch` together with others; nothing to commit. Its body is multipart/form-data
  with `?mode=`, for each file the fields path, [metadata], [description] and then file, in this order; no file may be
  larger than `batchFileBytes`. It answers as a commit does;
- `tus`: send them by `tus` (resumable, one at a time); nothing to commit;
- `refused`: `error` says why.

What is planned and not committed until `expiresAt` is forgotten; to ask for parts puts that off by a day. Requests are
secrets: whoever has one may write that
object.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

MOST_FILES = 1_000
LARGEST_FILE_BYTES = 5 * 1024**4  # of S3 and GCS; Azure takes more

Mode = Literal["skip", "overwrite"]
Action = Literal["skip", "put", "parts", "batch", "tus", "refused"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class FileBody(_Body):
    path: str
    size: Annotated[int, Field(ge=0, le=LARGEST_FILE_BYTES)]


class PlanBody(_Body):
    mode: Mode = "skip"
    direct: bool = Field(default=True, description="False: nothing by requests to the bucket itself.")
    files: Annotated[list[FileBody], Field(min_length=1, max_length=MOST_FILES)]


class PartsBody(_Body):
    upload: str
    numbers: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=1, max_length=MOST_FILES)]


class SentPart(_Body):
    number: Annotated[int, Field(ge=1, le=10_000)]
    etag: str | None = Field(default=None, description="The ETag header of the answer; Azure tells none.")


class CommittedFile(_Body):
    upload: str
    etag: str | None = Field(default=None, description="The ETag header of the answer to put, if it can be read.")
    metadata: dict[str, Any] | None = Field(default=None, description="With the keys user and system.")
    description: str | None = None
    parts: Annotated[list[SentPart] | None, Field(max_length=10_000)] = None


class CommitBody(_Body):
    files: Annotated[list[CommittedFile], Field(min_length=1, max_length=MOST_FILES)]


class ForgetBody(_Body):
    uploads: Annotated[list[str], Field(min_length=1, max_length=MOST_FILES)]


class RequestJson(TypedDict):
    method: str
    url: str
    headers: Mapping[str, str]


class PartRequestJson(RequestJson):
    number: int
    size: int


class PlannedJson(TypedDict):
    path: str
    action: Action
    item: NotRequired[str]  # the id of the item that is there, with skip
    upload: NotRequired[str]  # with put and parts: what to commit
    request: NotRequired[RequestJson]  # with put
    partBytes: NotRequired[int]  # with parts
    error: NotRequired[str]  # with refused


class PlanJson(TypedDict):
    files: list[PlannedJson]  # in the order asked
    expiresAt: str
    batchFileBytes: int


class PartsJson(TypedDict):
    requests: list[PartRequestJson]


class CommittedJson(TypedDict):
    path: str
    outcome: Literal["created", "overwrite", "skip", "failed"]
    item: str | None  # its id
    size: int | None  # of the item
    error: str | None


class CommitJson(TypedDict):
    files: list[CommittedJson]  # in the order asked
