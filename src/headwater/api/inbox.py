"""The inbox: notices as the SDK asks for them (`dl.messages`)."""

from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, ValidationError

from headwater import ids
from headwater.api.caller import Caller, Connection, needs
from headwater.catalog import notices
from headwater.catalog.notices import Choice
from headwater.errors import BadRequest
from headwater.wire import notices as wire

router = APIRouter(prefix="/inbox", tags=["notifications"])
_Model = TypeVar("_Model", bound=BaseModel)


class _After(BaseModel):
    id: str


class _Paging(BaseModel):
    page_size: Annotated[int, Field(alias="pageSize", ge=1, le=1000)] = 1000
    checkpoint: _After | None = None


class _Context(BaseModel):
    """What a message may be about; we have none about pipelines, services or nodes."""

    project: str | None = None
    org: str | None = None
    pipeline: str | None = None
    service: str | None = None
    node: str | None = None


@router.get("/message/user", openapi_extra=needs("account"))
async def list_messages(
    caller: Caller,
    conn: Connection,
    paging: Annotated[str, Query(alias="checkpointPagination", description="JSON: pageSize, checkpoint.")] = "{}",
    context: Annotated[str, Query(alias="contextExtent", description="JSON: project, org.")] = "{}",
) -> wire.MessagePageJson:
    """The caller's notices, the latest first; of a command its current one. `checkpoint` asks for the page behind."""
    page = _read(_Paging, "checkpointPagination", paging)
    about = _read(_Context, "contextExtent", context)
    if about.pipeline or about.service or about.node:
        return wire.message_page([], caller.email, has_next_page=False)
    found = await notices.list_notices(
        conn,
        caller,
        Choice(
            project_id=None if about.project is None else ids.from_wire(about.project, "project"),
            organization_id=None if about.org is None else ids.from_wire(about.org, "organization"),
        ),
        before_id=None if page.checkpoint is None else ids.from_wire(page.checkpoint.id, "message"),
        limit=page.page_size + 1,
    )
    has_next_page = len(found) > page.page_size
    return wire.message_page(found[: page.page_size], caller.email, has_next_page=has_next_page)


def _read(model: type[_Model], name: str, text: str) -> _Model:
    """Raises BadRequest."""
    try:
        given: Any = orjson.loads(text)
        return model.model_validate(given)
    except (orjson.JSONDecodeError, ValidationError):
        fields = ", ".join(field.alias or key for key, field in model.model_fields.items())
        raise BadRequest(f"{name} is a JSON object with some of these: {fields}.") from None
