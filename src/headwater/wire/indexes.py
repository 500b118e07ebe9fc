"""The column index of a dataset: which paths filters find by it, and how far it is built."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.columns.covering import IndexedPath
from headwater.catalog.columns.upkeep import IndexProgress
from headwater.catalog.slow_queries import Suggestion, index_command
from headwater.ids import to_wire
from headwater.wire import times


class IndexBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="As filters name it: metadata.user.camera")


class RebuildBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(default=None, description="Only this one; without it, all of them.")


class IndexedPathJson(TypedDict):
    path: str
    encoding: str  # codes, numbers, integers, hashes, paths
    pinned: bool  # somebody asked for it
    distinctValues: int | None  # where they are counted
    itemsCount: int  # that have it
    sizeBytes: int
    segments: int  # where it is built


class SuggestionJson(TypedDict):
    path: str  # an index on it would help
    queries: int  # slow ones that named it
    command: str  # that adds it; empty for a path that no shell takes


class IndexesJson(TypedDict):
    datasetId: str
    state: Literal["none", "waiting", "building", "ready"]  # waiting: for older transactions to end
    segments: int
    builtSegments: int
    waitingItems: int  # about how many are looked up in the table until they are built
    sizeBytes: int
    createdAt: str | None
    builtAt: str | None
    error: str | None
    paths: list[IndexedPathJson]
    suggestions: list[SuggestionJson]  # what would have helped most first


def indexes(
    dataset_id: int, progress: IndexProgress | None, paths: Sequence[IndexedPath], helpful: Sequence[Suggestion]
) -> IndexesJson:
    return IndexesJson(
        datasetId=to_wire(dataset_id),
        state=_state(progress),
        segments=progress.segments if progress else 0,
        builtSegments=progress.built_segments if progress else 0,
        waitingItems=progress.waiting_items if progress else 0,
        sizeBytes=sum(path.size_bytes for path in paths),
        createdAt=times.to_wire(progress.created_at) if progress else None,
        builtAt=times.to_wire(progress.built_at) if progress and progress.built_at else None,
        error=progress.error if progress else None,
        paths=[
            IndexedPathJson(
                path=path.path,
                encoding=path.encoding,
                pinned=path.is_pinned,
                distinctValues=path.values,
                itemsCount=path.present,
                sizeBytes=path.size_bytes,
                segments=path.segments,
            )
            for path in paths
        ],
        suggestions=[
            SuggestionJson(path=one.path, queries=one.times, command=index_command(to_wire(dataset_id), one.path))
            for one in helpful
        ],
    )


def _state(progress: IndexProgress | None) -> Literal["none", "waiting", "building", "ready"]:
    if progress is None:
        return "none"
    if not progress.is_ready:
        return "waiting"
    return "ready" if progress.built_segments == progress.segments else "building"
