"""Labels: the tree of names that annotations may have. A label's full name has its parents' in front: `fish.shark`.

Nothing here reads the database.
"""

import colorsys
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.catalog.fields import check_text, shown
from headwater.errors import BadRequest, Conflict, NotFound

MOST_LABELS = 50_000  # of one ontology
DEEPEST = 40  # levels
_LONGEST_NAME = 1_000  # characters of a full name
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(slots=True)
class Label:
    tag: str  # the last part of its full name
    color: str  # #rrggbb
    display_label: str | None = None
    display_data: dict[str, Any] = field(default_factory=dict[str, Any])
    attributes: list[Any] = field(default_factory=list[Any])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])  # what else clients keep there
    children: list["Label"] = field(default_factory=list["Label"])


@dataclass(frozen=True, slots=True)
class LabelChange:
    """What is said of the label with this full name; None says nothing."""

    name: str
    color: str | None = None
    display_label: str | None = None
    display_data: dict[str, Any] | None = None  # put over what is there; null takes a key away
    attributes: list[Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


def named(labels: Sequence[Label]) -> dict[str, Label]:
    """By full name, parents first. Raises BadRequest for two of one name, too many, or too deep."""
    found: dict[str, Label] = {}
    for name, label in _walk(labels, "", 1):
        if name in found:
            raise BadRequest(f"The label {shown(name)} is there twice. Every label needs a name of its own.")
        if len(name) > _LONGEST_NAME:
            raise BadRequest(f"The label {shown(name)}… is longer than {_LONGEST_NAME} characters, parents included.")
        found[name] = label
        if len(found) > MOST_LABELS:
            raise BadRequest(f"An ontology has at most {MOST_LABELS:,} labels.")
    return found


def _walk(labels: Sequence[Label], parent: str, depth: int) -> Iterator[tuple[str, Label]]:
    if labels and depth > DEEPEST:
        raise BadRequest(f"Labels are nested more than {DEEPEST} levels deep at {shown(parent)}.")
    for label in labels:
        name = f"{parent}.{label.tag}" if parent else label.tag
        yield name, label
        yield from _walk(label.children, name, depth + 1)


def changed(
    labels: list[Label], changes: Sequence[LabelChange], *, may_add: bool = True, may_change: bool = True
) -> list[Label]:
    """The tree with these changes, in their order; a parent that is not there is added with its child.

    Raises NotFound, Conflict for what may not be, BadRequest.
    """
    by_name = named(labels)
    for change in changes:
        label = by_name.get(change.name)
        if label is None and not may_add:
            raise NotFound(f"There is no label {shown(change.name)} in this ontology. To add it, send upsert: true.")
        if label is not None and not may_change:
            raise Conflict(f"There is a label {shown(change.name)} in this ontology already. To change it, update it.")
        if label is None:
            label = _added(labels, by_name, change.name)
        _apply(label, change)
    named(labels)  # once more, for the limits
    return labels


def _added(labels: list[Label], by_name: dict[str, Label], name: str) -> Label:
    """A new label below the nearest parent that there is; a tag may hold dots, so the longest name wins."""
    ends = [at for at, character in enumerate(name) if character == "."]
    parent = next((name[:end] for end in reversed(ends) if name[:end] in by_name), None)
    siblings = labels if parent is None else by_name[parent].children
    above = "" if parent is None else f"{parent}."
    label: Label | None = None
    for tag in name[len(above) :].split("."):
        label = Label(tag=checked_tag(tag), color=color_of(tag))
        siblings.append(label)
        by_name[above + tag] = label
        above, siblings = f"{above}{tag}.", label.children
    assert label is not None
    return label


def _apply(label: Label, change: LabelChange) -> None:
    if change.color is not None:
        label.color = change.color
    if change.display_label is not None:
        label.display_label = change.display_label
    if change.attributes is not None:
        label.attributes = change.attributes
    over = label.display_data | (change.display_data or {})
    label.display_data = {key: value for key, value in over.items() if value is not None}
    label.extra = label.extra | change.extra


def merged(trees: Sequence[list[Label]]) -> list[Label]:
    """One tree with the labels of all; of those with the same full name the first counts. Raises BadRequest."""
    result: list[Label] = []
    by_name: dict[str, Label] = {}
    for tree in trees:
        for name, label in named(tree).items():
            if name not in by_name:
                told = LabelChange(
                    name, label.color, label.display_label, label.display_data, label.attributes, label.extra
                )
                _apply(_added(result, by_name, name), told)
    named(result)
    return result


def checked_tag(tag: Any) -> str:
    """Raises BadRequest."""
    if not isinstance(tag, str) or not tag.strip() or len(tag) > _LONGEST_NAME:
        raise BadRequest(f"The tag of a label is a text of 1 to {_LONGEST_NAME} characters, not {shown(tag)}.")
    check_text(tag)
    return tag


def checked_color(color: Any, tag: str) -> str:
    """Without one, a color that this tag always gets. Raises BadRequest."""
    if color is None or color == "":
        return color_of(tag)
    if isinstance(color, list | tuple) and len(color) == 3 and all(_is_byte(part) for part in color):
        return "#{:02x}{:02x}{:02x}".format(*color)
    if not isinstance(color, str) or _COLOR.fullmatch(color) is None:
        raise BadRequest(f'The color of the label {shown(tag)} is written as "#rrggbb", not {shown(color)}.')
    return color


def _is_byte(part: Any) -> bool:
    return isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255


def color_of(tag: str) -> str:
    """The same for the same tag, in every ontology; well apart on dark and on bright pictures."""
    number = zlib.crc32(tag.encode())
    hue, light = (number & 0xFFFF) / 0x10000, 0.42 + (number >> 16) / 0x10000 * 0.2
    return "#{:02x}{:02x}{:02x}".format(*(round(part * 255) for part in colorsys.hls_to_rgb(hue, light, 0.75)))


# As they are stored.


def to_json(labels: Sequence[Label]) -> list[dict[str, Any]]:
    return [
        {
            "tag": label.tag,
            "color": label.color,
            "display_label": label.display_label,
            "display_data": label.display_data,
            "attributes": label.attributes,
            "extra": label.extra,
            "children": to_json(label.children),
        }
        for label in labels
    ]


def from_json(stored: Sequence[dict[str, Any]]) -> list[Label]:
    return [_from_json(**one) for one in stored]


def _from_json(*, children: Sequence[dict[str, Any]], **rest: Any) -> Label:
    return Label(children=from_json(children), **rest)
