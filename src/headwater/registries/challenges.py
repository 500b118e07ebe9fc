"""The WWW-Authenticate header: how a registry wants to be logged in to (RFC 9110, 11.6.1)."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from yarl import URL

_WORD = re.compile(r'([A-Za-z0-9_-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')
_URL = re.compile(r"https?://[\x21-\x7e]+")  # nothing that two readers of URLs might read differently


def read_challenges(headers: Iterable[str]) -> dict[str, dict[str, str]]:
    """Parameters by scheme, all names in lower case; a word without a value begins a scheme."""
    challenges: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for header in headers:
        for word in _WORD.finditer(header):
            name, quoted, plain = word[1].lower(), word[2], word[3]
            if quoted is None and plain is None:
                parameters = challenges.setdefault(name, {})
            else:
                parameters[name] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return challenges


def token_url(challenge: Mapping[str, str]) -> str:
    """Where to get a token for what the challenge asks: its realm with service and scope."""
    realm = challenge.get("realm", "").partition("#")[0]
    asked = {name: challenge[name] for name in ("service", "scope") if challenge.get(name)}
    return realm + ("&" if "?" in realm else "?") + urlencode(asked) if asked else realm


def is_trusted(url: str, *, endpoint: str, login_host: str | None) -> bool:
    """Whether the password may go there: to the registry's own host, or the one that is known to log in for it.

    A registry that was broken into, or an answer that was tampered with, could name any realm.
    """
    if not _URL.fullmatch(url):
        return False
    try:
        asked, own = URL(url, encoded=True), URL(endpoint)
        known = {own.host, login_host} - {None}
        is_safe = asked.scheme == "https" or (asked.scheme == own.scheme == "http")
        return is_safe and asked.raw_user is None and not {asked.host, asked.authority}.isdisjoint(known)
    except ValueError:
        return False
