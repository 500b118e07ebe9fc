"""Notices as JSON: our own, and the messages that the SDK knows."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from headwater.catalog.notices import Notice
from headwater.ids import to_wire
from headwater.wire import times

Level = Literal["info", "warning", "error"]


class NoticeJson(TypedDict):
    id: str
    kind: str
    level: str
    title: str
    message: str
    organizationId: str
    projectId: str | None
    projectName: str | None
    datasetId: str | None
    datasetName: str | None
    commandId: str | None
    commandType: str | None
    link: str | None
    current: bool
    read: bool
    createdAt: str


class ReadBody(BaseModel):
    """Which notices have been read: those of `ids`; or all, those until one, and of those the chosen ones."""

    ids: Annotated[list[str], Field(max_length=1000)] | None = None
    until: str | None = Field(default=None, description="The id of the latest one that was seen.")
    project: str | None = None
    dataset: str | None = None


class UnreadJson(TypedDict):
    unread: int


class ReadJson(UnreadJson):
    marked: int


def notice(found: Notice, base: str) -> NoticeJson:
    """`base`: the URL of the API."""
    return NoticeJson(
        id=to_wire(found.id),
        kind=found.kind,
        level=found.level,
        title=found.title,
        message=found.message,
        organizationId=to_wire(found.organization_id),
        projectId=_id(found.project_id),
        projectName=found.project_name,
        datasetId=_id(found.dataset_id),
        datasetName=found.dataset_name,
        commandId=_id(found.command_id),
        commandType=found.command_kind,
        link=_link(found, base),
        current=found.is_current,
        read=found.is_read,
        createdAt=times.to_wire(found.created_at),
    )


def _id(number: int | None) -> str | None:
    return None if number is None else to_wire(number)


def _link(found: Notice, base: str) -> str | None:
    for noun, number in (
        ("commands", found.command_id),
        ("datasets", found.dataset_id),
        ("projects", found.project_id),
    ):
        if number is not None:
            return f"{base}/{noun}/{to_wire(number)}"
    return None


class MessageContextJson(TypedDict):
    project: str | None
    org: str


class MessageJson(TypedDict):
    id: str
    title: str
    description: str
    context: MessageContextJson
    read: int
    dismissed: int
    new: int
    userId: str
    notificationId: str
    notificationCode: str
    resourceAction: str
    resourceType: str
    resourceId: str
    resourceName: str
    createdAt: str


class MessagePageJson(TypedDict):
    items: list[MessageJson]
    hasNextPage: bool
    checkpoint: dict[str, Any] | None


def message(found: Notice, user: str) -> MessageJson:
    kind, resource_id, name = _resource(found)
    return MessageJson(
        id=to_wire(found.id),
        title=found.title,
        description=found.message,
        context=MessageContextJson(project=_id(found.project_id), org=to_wire(found.organization_id)),
        read=int(found.is_read),
        dismissed=0,
        new=int(not found.is_read),
        userId=user,
        notificationId=to_wire(found.id),
        notificationCode=found.kind,
        resourceAction=found.kind.rpartition(".")[2],
        resourceType=kind,
        resourceId=to_wire(resource_id),
        resourceName=name,
        createdAt=times.to_wire(found.created_at),
    )


def _resource(found: Notice) -> tuple[str, int, str]:
    """As the SDK names its resources."""
    if found.dataset_id is not None:
        return "datasets", found.dataset_id, found.dataset_name or ""
    if found.project_id is not None:
        return "projects", found.project_id, found.project_name or ""
    return "organizations", found.organization_id, ""


def message_page(found: list[Notice], user: str, *, has_next_page: bool) -> MessagePageJson:
    return MessagePageJson(
        items=[message(one, user) for one in found],
        hasNextPage=has_next_page,
        checkpoint={"id": to_wire(found[-1].id)} if found else None,
    )
