"""Notices as JSON."""

from typing_extensions import TypedDict

from headwater.catalog.notices import Notice
from headwater.ids import to_wire
from headwater.wire import times


class NoticeJson(TypedDict):
    id: str
    organizationId: str
    projectId: str | None
    level: str
    title: str
    message: str
    createdAt: str


def notice(found: Notice) -> NoticeJson:
    return NoticeJson(
        id=to_wire(found.id),
        organizationId=to_wire(found.organization_id),
        projectId=None if found.project_id is None else to_wire(found.project_id),
        level=found.level,
        title=found.title,
        message=found.message,
        createdAt=times.to_wire(found.created_at),
    )
