"""Ontologies as the SDK sends and reads them: labels are nodes of `roots`, attributes lie in the metadata."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog import labels
from headwater.catalog.attributes import Attribute, Range
from headwater.catalog.fields import shown
from headwater.catalog.labels import Label, LabelChange
from headwater.catalog.ontologies import Ontology, Replacement
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times
from headwater.wire.items import check_depth

LARGEST_BYTES = 8_000_000  # of an ontology or a recipe, as JSON text
_VALUE_KEYS = frozenset(["tag", "label_name", "color", "displayLabel", "display_label", "displayData", "attributes"])
_ATTRIBUTE_KEYS = frozenset(["key", "title", "type", "scope", "optional", "multi", "values", "range", "scriptData"])


def check_document(given: Any, noun: str) -> None:
    """Raises BadRequest for what cannot be stored, or not be answered."""
    check_depth(given, noun)
    try:
        size_bytes = len(json.dumps(given, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:  # half a surrogate pair, NaN
        raise BadRequest(f"{noun} holds a number or a character that JSON does not know.") from None
    if size_bytes > LARGEST_BYTES:
        raise BadRequest(f"{noun} is {size_bytes:,} bytes of JSON; {LARGEST_BYTES:,} are the most.")


class OntologyBody(BaseModel):
    """`POST /ontologies`. Attributes are objects with a key each, or names alone, as clients of old send them."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    title: str | None = None
    project_ids: list[str] = Field(alias="projectIds")
    roots: list[Any] | None = None
    attributes: list[Any] | None = None
    metadata: dict[str, Any] | None = None


class OntologyPut(BaseModel):
    """The whole ontology, as the SDK sends it; what is not named here, or null, is left alone."""

    model_config = ConfigDict(extra="ignore")

    title: str | None = None
    roots: list[Any] | None = None
    attributes: list[Any] | None = None
    metadata: dict[str, Any] | None = None


class LabelsBody(BaseModel):
    """`labelsNode`: labels by their full names, `{"tag": "fish.shark", "color": "#0a0b0c"}`."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    nodes: list[Any] = Field(alias="labelsNode")
    upsert: bool = Field(default=False, description="Add those that are not there.")


class AttributesBody(BaseModel):
    items: list[Any] = Field(min_length=1)
    upsert: bool = Field(default=False, description="Change those that are there already.")


class KeysBody(BaseModel):
    keys: list[str] = Field(min_length=1, max_length=10_000)


class OntologyJson(TypedDict):
    id: str
    title: str | None
    roots: list[dict[str, Any]]
    attributes: list[Any]
    metadata: dict[str, Any]
    projectIds: list[str]
    url: str
    creator: str
    createdAt: str
    updatedAt: str
    updatedBy: str


def ontology(found: Ontology, base: str) -> OntologyJson:
    """The SDK takes attributes for names alone when the metadata says nothing of attributes."""
    asked = [_attribute_json(attribute) for attribute in found.attributes]
    project_ids = [to_wire(project_id) for project_id in found.project_ids]
    metadata = {**found.metadata, "system": {**found.metadata.get("system", {}), "projectIds": project_ids}}
    if asked or not found.attribute_names:
        metadata["attributes"] = asked
    return OntologyJson(
        id=to_wire(found.id),
        title=found.title,
        roots=[_root(label) for label in found.labels],
        attributes=found.attribute_names or asked,
        metadata=metadata,
        projectIds=project_ids,
        url=f"{base}/ontologies/{to_wire(found.id)}",
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
        updatedBy=found.updated_by,
    )


# Labels.


def _root(label: Label) -> dict[str, Any]:
    value = {
        **label.extra,
        "tag": label.tag,
        "color": label.color,
        "attributes": label.attributes,
        "displayLabel": label.display_label,
        "displayData": label.display_data,
    }
    return {"value": value, "children": [_root(child) for child in label.children]}


def parse_roots(roots: Sequence[Any]) -> list[Label]:
    """Raises BadRequest."""
    check_document(roots, "roots")
    return [_parse_root(root) for root in roots]


def _parse_root(root: Any) -> Label:
    if not isinstance(root, dict):
        raise BadRequest('A label of roots looks like {"value": {"tag": "fish"}, "children": []}, not ' + shown(root))
    children = _children(root)
    value = root.get("value", {key: one for key, one in root.items() if key != "children"})
    said = _parse_value(value)
    tag = labels.checked_tag(said.name)
    return Label(
        tag=tag,
        color=said.color or labels.color_of(tag),
        display_label=said.display_label,
        display_data={key: one for key, one in (said.display_data or {}).items() if one is not None},
        attributes=said.attributes or [],
        extra=said.extra,
        children=[_parse_root(child) for child in children],
    )


def parse_nodes(nodes: Sequence[Any]) -> list[LabelChange]:
    """Labels by full names; one with `children` stands for itself and for these. Raises BadRequest."""
    check_document(nodes, "labelsNode")
    return [change for node in nodes for change in _parse_node(node, "")]


def _parse_node(node: Any, parent: str) -> Iterable[LabelChange]:
    if not isinstance(node, dict):
        raise BadRequest(f'A label of labelsNode looks like {{"tag": "fish.shark"}}, not {shown(node)}.')
    said = _parse_value(node.get("value", {key: one for key, one in node.items() if key != "children"}), parent)
    yield said
    for child in _children(node):
        yield from _parse_node(child, f"{said.name}.")


def _children(node: dict[str, Any]) -> list[Any]:
    children = node.get("children")
    if not isinstance(children, list | None):
        raise BadRequest(f"children: the labels below another one are a list, not {shown(children)}.")
    return children or []


def _parse_value(value: Any, parent: str = "") -> LabelChange:
    if not isinstance(value, dict):
        raise BadRequest(f'The value of a label looks like {{"tag": "fish", "color": "#0a0b0c"}}, not {shown(value)}.')
    tag = labels.checked_tag(value.get("tag", value.get("label_name")))
    display_label = value.get("displayLabel", value.get("display_label"))
    display_data, attributes = value.get("displayData"), value.get("attributes")
    if not isinstance(display_label, str | None):
        raise BadRequest(f"displayLabel of the label {shown(tag)} is a text, not {shown(display_label)}.")
    if not isinstance(display_data, dict | None):
        raise BadRequest(f"displayData of the label {shown(tag)} is a JSON object, not {shown(display_data)}.")
    if not isinstance(attributes, list | None):
        raise BadRequest(f"attributes of the label {shown(tag)} are a list, not {shown(attributes)}.")
    color = value.get("color")
    return LabelChange(
        name=parent + tag,
        color=labels.checked_color(color, tag) if color else None,
        display_label=display_label,
        display_data=display_data,
        attributes=attributes,
        extra={key: one for key, one in value.items() if key not in _VALUE_KEYS},
    )


# Attributes.


def _attribute_json(attribute: Attribute) -> dict[str, Any]:
    """`scriptData` repeats what the SDK looks for there when it copies an ontology."""
    told: dict[str, Any] = {
        **attribute.extra,
        "key": attribute.key,
        "title": attribute.title,
        "type": attribute.kind,
        "scope": attribute.scope,
        "scriptData": {"title": attribute.title},
    }
    if attribute.is_optional is not None:
        told["optional"] = told["scriptData"]["optional"] = attribute.is_optional
    if attribute.is_multiple is not None:
        told["multi"] = attribute.is_multiple
    if attribute.values is not None:
        told["values"] = attribute.values
    if attribute.range is not None:
        told["range"] = {"min": attribute.range.min, "max": attribute.range.max, "step": attribute.range.step}
    return told


def parse_attributes(given: Sequence[Any]) -> list[Attribute]:
    """Raises BadRequest."""
    check_document(given, "attributes")
    return [_parse_attribute(one) for one in given]


def _parse_attribute(given: Any) -> Attribute:
    if not isinstance(given, dict):
        raise BadRequest(
            'An attribute looks like {"key": "1", "title": "Weather", "type": "options", "values": ["sun", "rain"], '
            f'"scope": ["*"]}}, not {shown(given)}.'
        )
    script = given.get("scriptData")
    said = (script if isinstance(script, dict) else {}) | given
    key = _typed(said, "key", str, "a text")
    if key is None:
        raise BadRequest(f"An attribute needs a key, a text of its own: {shown(given)}.")
    values = _typed(said, "values", list, "a list of texts")
    scope = _typed(said, "scope", list, "a list of labels")
    if not all(isinstance(text, str) for text in [*(values or []), *(scope or [])]):
        raise BadRequest(f"The attribute {shown(key)}: its values and its scope are lists of texts.")
    kind: Any = _typed(said, "type", str, "a text") or ""  # `attributes.check` knows which there are
    return Attribute(
        key=key,
        title=_typed(said, "title", str, "a text") or key,
        kind=kind,
        scope=["*"] if scope is None else scope,
        is_optional=_typed(said, "optional", bool, "true or false"),
        is_multiple=_typed(said, "multi", bool, "true or false"),
        values=values,
        range=_range(key, _typed(said, "range", dict, "an object with min, max and step")),
        extra={key: one for key, one in given.items() if key not in _ATTRIBUTE_KEYS},
    )


def _typed(said: dict[str, Any], name: str, kind: type, words: str) -> Any:
    value = said.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadRequest(f"{name} of an attribute is {words}, not {shown(value)}.")
    return value


def _range(key: str, given: dict[str, Any] | None) -> Range | None:
    if given is None:
        return None
    numbers: list[Any] = [given.get(name) for name in ("min", "max", "step")]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise BadRequest(f'The attribute {shown(key)}: a range looks like {{"min": 0, "max": 10, "step": 1}}.')
    if any(isinstance(number, int) and number.bit_length() > 64 for number in numbers):
        raise BadRequest(f"The attribute {shown(key)}: the numbers of its range lie between -2^53 and 2^53.")
    return Range(*numbers)


# Whole ontologies.


def attributes_of(attributes: Sequence[Any] | None, metadata: dict[str, Any]) -> tuple[list[Attribute], list[Any]]:
    """Those with keys, and the names of those that are no more than names. Raises BadRequest."""
    in_metadata = metadata.get("attributes")
    if not isinstance(in_metadata, list | None):
        raise BadRequest(f"metadata.attributes: attributes are a list, not {shown(in_metadata)}.")
    given = list(attributes or [])
    check_document(given, "attributes")
    with_keys = in_metadata or [one for one in given if isinstance(one, dict)]
    return parse_attributes(with_keys), [one for one in given if isinstance(one, str)]


def own_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """What is not told elsewhere. Raises BadRequest."""
    given = metadata or {}
    check_document(given, "metadata")
    system = given.get("system")
    if not isinstance(system, dict | None):
        raise BadRequest("metadata.system is a JSON object.")
    kept = {key: value for key, value in given.items() if key not in ("system", "attributes")}
    return kept | {"system": {key: value for key, value in (system or {}).items() if key != "projectIds"}}


def replacement(body: OntologyPut, before: dict[str, Any], *, system: bool) -> Replacement:
    """What a whole ontology changes: its labels and its title.

    Attributes and `metadata.system` have calls of their own, and whoever sends the whole may have read it before one of
    these: they count with `system` alone. `before`: the metadata as it is. Raises BadRequest.
    """
    metadata = None if body.metadata is None else own_metadata(body.metadata)
    if metadata is not None and not system:
        metadata["system"] = before.get("system", {})
    asked, names = attributes_of(body.attributes, body.metadata or {}) if system else (None, None)
    return Replacement(
        title=body.title,
        labels=None if body.roots is None else parse_roots(body.roots),
        attributes=asked if body.metadata is not None or body.attributes is not None else None,
        attribute_names=names if body.attributes is not None else None,
        metadata=metadata,
        project_ids=project_ids_of(body.metadata) if system else None,
    )


def project_ids_of(metadata: dict[str, Any] | None) -> list[int] | None:
    """From `metadata.system.projectIds`. Raises BadRequest, NotFound."""
    system = (metadata or {}).get("system")
    given = system.get("projectIds") if isinstance(system, dict) else None
    return None if given is None else wire_ids(given, "project")


def wire_ids(given: Any, noun: str) -> list[int]:
    """Raises BadRequest, NotFound."""
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise BadRequest(f"Ids of a {noun} are a list of texts, not {shown(given)}.")
    return [from_wire(one, noun) for one in given]
