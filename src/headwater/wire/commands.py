"""Commands as the SDK polls them."""

from typing import Any

from typing_extensions import TypedDict

from headwater.catalog.commands import Command
from headwater.ids import to_wire
from headwater.wire import times


class CommandJson(TypedDict):
    id: str
    url: str
    type: str
    status: str
    progress: float
    spec: dict[str, Any]
    warning: str | None
    error: str | None
    createdAt: str
    updatedAt: str


def command(found: Command, base: str) -> CommandJson:
    return CommandJson(
        id=to_wire(found.id),
        url=f"{base}/commands/{to_wire(found.id)}",
        type=found.kind,
        status=found.status,
        progress=round(found.progress_percent, 2),
        spec=found.spec,
        warning=found.warning,
        error=found.error,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
    )
