"""Feature sets, their vectors and searches by similarity, as the SDK and our own clients send and read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, Strict
from typing_extensions import TypedDict

from headwater.catalog.feature_sets import FeatureSet, Metric
from headwater.catalog.features import FeatureVector, NewVector
from headwater.catalog.query import Page, Tree
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times
from headwater.wire.items import ItemJson
from headwater.wire.query import parse_filter

_LARGEST_PAGE_SIZE = 1_000
_LARGEST_PAGE = 1_000_000_000
_MOST_VECTORS = 50_000  # of one request
_DIRECTIONS = {"ascending": False, "descending": True}

Numbers = list[Annotated[float, Strict()]]


# Feature sets.


class NewSetBody(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    name: str
    size: Annotated[int, Strict()] = Field(description="How many numbers each of its vectors has.")
    type: str = Field(description="Whatever you call it: clip, 2d, PCA, …")
    project: str
    entity_type: str = Field(default="item", alias="entityType", description="item, annotation or dataset.")
    model_id: str | None = Field(default=None, alias="modelId")


class SetPatch(BaseModel):
    """What may be changed; the SDK sends the whole set, the rest of which is left alone."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    name: str | None = None
    type: str | None = None
    model_id: str | None = Field(default=None, alias="modelId")


class FeatureSetJson(TypedDict):
    id: str
    name: str
    type: str
    entityType: str
    size: int
    project: str
    modelId: str | None
    org: str
    url: str
    creator: str
    createdAt: str
    updatedAt: str
    updatedBy: str
    index: str | None


def feature_set(found: FeatureSet, base: str) -> FeatureSetJson:
    """`index` is ours: the metric by which searches in it need not measure every vector."""
    return FeatureSetJson(
        id=to_wire(found.id),
        name=found.name,
        type=found.kind,
        entityType=found.entity_type,
        size=found.size,
        project=to_wire(found.project_id),
        modelId=found.model_id,
        org=to_wire(found.organization_id),
        url=f"{base}/features/sets/{to_wire(found.id)}",
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
        updatedBy=found.updated_by,
        index=found.index_metric,
    )


class IndexBody(BaseModel):
    metric: Metric = Field(default="euclidean", description="By which searches are to be fast.")


# Vectors.


class VectorBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    entity_id: str = Field(alias="entityId")
    value: Numbers
    dataset_id: str | None = Field(default=None, alias="datasetId", description="Of the item or the annotation.")
    feature_set_id: str = Field(alias="featureSetId")
    project: str | None = None
    version: Annotated[str, Field(max_length=255)] | None = None
    parent_id: str | None = Field(default=None, alias="parentId")


VectorBodies = Annotated[list[VectorBody], Field(min_length=1, max_length=_MOST_VECTORS)]


def new_vectors(bodies: Sequence[VectorBody]) -> dict[int, list[tuple[int, NewVector]]]:
    """By set, each with its place in the request. Raises NotFound, BadRequest."""
    found: dict[int, list[tuple[int, NewVector]]] = {}
    for number, body in enumerate(bodies):
        entity_id = from_wire(body.entity_id, "entity")
        if body.version is not None and "\0" in body.version:
            raise BadRequest(f"[{number}].version holds a NUL character, which cannot be stored.")
        given = NewVector(
            dataset_id=entity_id if body.dataset_id is None else from_wire(body.dataset_id, "dataset"),
            entity_id=entity_id,
            value=body.value,
            version=body.version,
            parent_id=None if body.parent_id is None else from_wire(body.parent_id, "feature vector"),
        )
        found.setdefault(from_wire(body.feature_set_id, "feature set"), []).append((number, given))
    return found


class FeatureJson(TypedDict):
    id: str
    featureSetId: str
    entityId: str
    entityType: str
    datasetId: str
    value: list[float]
    project: str
    org: str
    version: str | None
    parentId: str | None
    url: str
    creator: str | None
    createdAt: str


def feature(found: FeatureVector, base: str) -> FeatureJson:
    return FeatureJson(
        id=to_wire(found.id),
        featureSetId=to_wire(found.feature_set_id),
        entityId=to_wire(found.entity_id),
        entityType=found.entity_type,
        datasetId=to_wire(found.dataset_id),
        value=found.value,
        project=to_wire(found.project_id),
        org=to_wire(found.organization_id),
        version=found.version,
        parentId=None if found.parent_id is None else to_wire(found.parent_id),
        url=f"{base}/features/vectors/{to_wire(found.id)}",
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
    )


class FeaturePageJson(TypedDict):
    totalItemsCount: int
    items: list[FeatureJson]
    totalPagesCount: int
    hasNextPage: bool


class CountBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    project_id: str = Field(alias="projectId")
    dataset_ids: Annotated[list[str], Field(max_length=10_000)] = Field(default_factory=list[str], alias="datasetIds")


class CountJson(TypedDict):
    featureSetId: str
    count: int


# Queries of both.


@dataclass(frozen=True, slots=True)
class FeaturesQuery:
    tree: Tree
    page: Page
    project_ids: list[int] | None


def parse_query(body: Mapping[str, Any]) -> FeaturesQuery:
    """Raises BadRequest, NotFound for a project that cannot be."""
    for key in ("join", "intersect", "except", "update", "delete"):
        if body.get(key):
            raise BadRequest(f"{key}: feature sets and vectors are found by a filter of their own fields alone.")
    return FeaturesQuery(
        tree=parse_filter(body.get("filter")),
        page=Page(_sort(body.get("sort")), _number(body, "page", 0, _LARGEST_PAGE), _page_size(body)),
        project_ids=_projects(body.get("context")),
    )


def _page_size(body: Mapping[str, Any]) -> int:
    return min(_number(body, "pageSize", _LARGEST_PAGE_SIZE, 2**63), _LARGEST_PAGE_SIZE)


def _number(body: Mapping[str, Any], name: str, default: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise BadRequest(f"{name}: must be a whole number from 0 up, not {repr(value)[:80]}.")
    return value


def _sort(given: object) -> tuple[tuple[str, bool], ...]:
    if not isinstance(given, dict | None):
        raise BadRequest('sort: looks like {"id": "ascending"}.')
    sort: list[tuple[str, bool]] = []
    for name, direction in cast("dict[str, Any]", given or {}).items():
        if not isinstance(direction, str) or direction not in _DIRECTIONS:
            raise BadRequest(f'sort.{name[:80]}: "ascending" or "descending", not {repr(direction)[:80]}.')
        sort.append((name, _DIRECTIONS[direction]))
    return tuple(sort)


def _projects(context: object) -> list[int] | None:
    if not isinstance(context, dict | None):
        raise BadRequest('context: looks like {"projects": ["65a0…"]}.')
    projects = cast("dict[str, Any]", context or {}).get("projects")
    if not isinstance(projects, list | None):
        raise BadRequest('context.projects: a list of ids: {"projects": ["65a0…"]}.')
    return None if projects is None else [from_wire(str(one), "project") for one in cast("list[Any]", projects)]


def page_of(found: list[Any], total: int, page: Page) -> dict[str, Any]:
    return {
        "totalItemsCount": total,
        "items": found,
        "totalPagesCount": -(-total // page.page_size) if page.page_size else 0,
        "hasNextPage": page.page_size > 0 and page.page * page.page_size + len(found) < total,
    }


# Similarity.


class SimilarBody(BaseModel):
    """Which items to order, and what by: a vector, or an item that has one."""

    model_config = ConfigDict(extra="forbid")

    feature_set_id: str = Field(alias="featureSetId")
    vector: Numbers | None = None
    item_id: str | None = Field(default=None, alias="itemId", description="Its vector is taken; it is left out itself.")
    filter: dict[str, Any] = Field(
        default={"$and": [{"hidden": False}, {"type": "file"}]}, description="As in POST /datasets/{id}/query."
    )
    limit: Annotated[int, Strict(), Field(ge=1, le=1_000)] = 10
    metric: Metric = "euclidean"


class SimilarItemJson(TypedDict):
    item: ItemJson
    distance: float


class SimilarJson(TypedDict):
    items: list[SimilarItemJson]
    metric: Metric
    exact: bool


@dataclass(frozen=True, slots=True)
class OrderByDistance:
    """The join of a query of items that the SDK's users write: `value: {$euclid: {input, $euclidSort}}`."""

    feature_set_id: int
    vector: list[float] | None
    vector_id: int | None  # of which it is, where no vector is given
    distances: dict[str, float]
    is_descending: bool
    dataset_id: int | None


def order_by_distance(body: Mapping[str, Any]) -> OrderByDistance | None:
    """What a query's join with feature vectors asks for; None where it has none. Raises BadRequest, NotFound."""
    join = body.get("join")
    on = cast("dict[str, Any]", join).get("on") if isinstance(join, dict) else None
    if not isinstance(on, dict) or cast("dict[str, Any]", on).get("resource") != "feature_vectors":
        return None
    given = _flat(cast("dict[str, Any]", join).get("filter"))
    value = given.pop("value", None)
    euclid = cast("dict[str, Any]", value).get("$euclid") if isinstance(value, dict) else None
    set_id, dataset_id = given.pop("featureSetId", None), given.pop("datasetId", None)
    if not isinstance(euclid, dict) or not isinstance(set_id, str) or given:
        raise BadRequest(
            'join.filter: a join with feature_vectors orders items by distance: {"featureSetId": "65a0…", "value": '
            '{"$euclid": {"input": […], "$euclidSort": {"eu_dist": "ascending"}}}}.'
        )
    asked = cast("dict[str, Any]", euclid)
    if unknown := set(asked) - {"input", "$euclidSort", "$euclidFilter"}:
        raise BadRequest(
            f"join.filter.value.$euclid: has input, $euclidSort and $euclidFilter, not {min(unknown)[:40]}."
        )
    vector = asked.get("input")
    if not isinstance(vector, str) and not _is_vector(vector):
        raise BadRequest("join.filter.value.$euclid.input: a list of numbers, or the id of a feature vector.")
    return OrderByDistance(
        feature_set_id=from_wire(set_id, "feature set"),
        vector=None if isinstance(vector, str) else [float(number) for number in cast("list[float]", vector)],
        vector_id=from_wire(vector, "feature vector") if isinstance(vector, str) else None,
        distances=_distances(asked.get("$euclidFilter")),
        is_descending=_is_descending(asked.get("$euclidSort")),
        dataset_id=None if dataset_id is None else from_wire(str(dataset_id), "dataset"),
    )


def _flat(conditions: object) -> dict[str, Any]:
    """`{"$and": [{"a": 1}, {"b": 2}]}` as `{"a": 1, "b": 2}`. Raises BadRequest."""
    if not isinstance(conditions, dict):
        raise BadRequest("join.filter: must be an object {…}.")
    flat: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", conditions).items():
        if name != "$and":
            flat[name] = value
            continue
        for part in cast("list[Any]", value if isinstance(value, list) else [None]):
            if not isinstance(part, dict) or "$and" in part:
                raise BadRequest("join.filter.$and: must be a list of conditions.")
            flat |= cast("dict[str, Any]", part)
    return flat


def _is_vector(given: object) -> bool:
    return isinstance(given, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < _BEYOND
        for number in cast("list[Any]", given)
    )


_BEYOND = 10**300


def _distances(given: object) -> dict[str, float]:
    if given is None:
        return {}
    known = {"$eq", "$gt", "$gte", "$lt", "$lte"}
    bounds = cast("dict[str, Any]", given if isinstance(given, dict) else {"": None})
    if not set(bounds) <= known or not _is_vector(list(bounds.values())):
        raise BadRequest('join.filter.value.$euclid.$euclidFilter: bounds of the distance, such as {"$lte": 0.5}.')
    return {operator[1:]: float(bound) for operator, bound in bounds.items()}


def _is_descending(given: object) -> bool:
    if given is None:
        return False
    directions = list(cast("dict[str, Any]", given).values()) if isinstance(given, dict) else []
    if len(directions) != 1 or not isinstance(directions[0], str) or directions[0] not in _DIRECTIONS:
        raise BadRequest('join.filter.value.$euclid.$euclidSort: {"eu_dist": "ascending"} or "descending".')
    return _DIRECTIONS[directions[0]]
