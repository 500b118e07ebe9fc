"""Quotas: what an organisation may have and has."""

from typing import Annotated

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from headwater.catalog.quotas import ProjectUse, Quota, reached_percent
from headwater.ids import to_wire


class QuotaBody(BaseModel):
    limit: Annotated[int, Field(strict=True, ge=0, lt=2**62)] | None = Field(
        description="Data points; null: unlimited."
    )


class DatasetUseJson(TypedDict):
    id: str
    name: str
    used: int


class ProjectUseJson(TypedDict):
    id: str
    name: str
    used: int
    datasets: list[DatasetUseJson]


class QuotaJson(TypedDict):
    orgId: str
    limit: int | None
    used: int
    uploading: int
    left: int | None
    warning: str | None
    projects: list[ProjectUseJson]


def quota(organization_id: int, found: Quota, *, with_projects: bool = True) -> QuotaJson:
    """`with_projects`: not for those who may not know of them."""
    return QuotaJson(
        orgId=to_wire(organization_id),
        limit=found.limit,
        used=found.used,
        uploading=found.held,
        left=found.left,
        warning=_warning(found),
        projects=[project_use(project) for project in found.projects] if with_projects else [],
    )


def _warning(found: Quota) -> str | None:
    percent = reached_percent(found.used + found.held, found.limit)
    if not percent:
        return None
    told = f"{found.left:,} of {found.limit:,} data points are left"
    if found.left:
        return f"More than {percent} % of the data points are used: {told}."
    return (
        f"All data points are used: {told}. Syncs and uploads add nothing before items are deleted or the limit is set."
    )


def project_use(found: ProjectUse) -> ProjectUseJson:
    return ProjectUseJson(
        id=to_wire(found.id),
        name=found.name,
        used=found.used,
        datasets=[
            DatasetUseJson(id=to_wire(dataset.id), name=dataset.name, used=dataset.used) for dataset in found.datasets
        ],
    )
