"""Fills templates; every value is quoted for the language that it goes into, so that no name can say more than itself.

A template's places are `@{name}`; `@@` is one `@`. Each value is a `Raw` text of that language already, or a plain one.
"""

import json
import re
import shlex
import string
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

_SHELL_VARIABLE = re.compile("\ue000([A-Z_]+)\ue001")


class Raw(str):
    """Text of the template's own language."""

    __slots__ = ()


class _Template(string.Template):
    delimiter = "@"
    idpattern = "(?!)"  # only with braces
    braceidpattern = "[a-z_]+"


def filled(file: str, values: Mapping[str, str]) -> str:
    """A template of this package, with its values quoted as its kind asks for."""
    quote = _QUOTES[file.rpartition(".")[2]]
    quoted = {name: value if isinstance(value, Raw) else quote(value) for name, value in values.items()}
    return _Template(template(file)).substitute(quoted)


def template(file: str) -> str:
    return (resources.files("headwater.storage.event_setup") / "templates" / file).read_text()


def function_source(name: str) -> str:
    return (resources.files("headwater.storage.event_setup") / "functions" / f"{name}.py").read_text()


def variable(name: str) -> str:
    """Stands in a document for a variable of the shell, which is known only when the script runs."""
    return f"\ue000{name}\ue001"


def shell_json(document: Any) -> Raw:
    """A JSON document as one word of the shell."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    parts = _SHELL_VARIABLE.split(text)  # text and names of variables by turns
    words = [f'"${part}"' if i % 2 else shlex.quote(part) for i, part in enumerate(parts)]
    return Raw("".join(words))


def shown(text: str) -> Raw:
    """A word of the shell that prints as one that can be pasted."""
    return Raw(shlex.quote(shlex.quote(text)))


def hcl(text: str) -> str:
    """A string of Terraform's language."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def hcl_list(texts: list[str]) -> Raw:
    return Raw("[" + ", ".join(hcl(text) for text in texts) + "]")


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_QUOTES: dict[str, Callable[[str], str]] = {"sh": shlex.quote, "tf": hcl, "toml": _toml}
