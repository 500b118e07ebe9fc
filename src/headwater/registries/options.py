"""The options of a private-registry integration, as the SDK builds them (wire.md 5.5), read into records.

Docker Hub, Artifact Registry and Azure: `{"name": …, "spec": {"password": BASE64}}`, where BASE64 is the JSON that
Docker keeps in its config.json: `{"auths": {HOST: {"username", "password", "auth"}}}`. Amazon's ECR: `{"name": "AWS",
"spec": {"accessKeyId", "secretAccessKey", "account", "region"}}`.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from headwater.errors import BadRequest
from headwater.net.addresses import check_endpoint

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_HOST_ENDS = ("/", "/v1", "/v1/", "/v2", "/v2/")  # `docker login` writes https://index.docker.io/v1/
_ECR_OPTIONS = ("accessKeyId", "secretAccessKey", "account", "region")
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}")
_SHAPES = (
    'Its options are {"name": …, "spec": {"password": BASE64}}, where BASE64 is the base64 of '
    '{"auths": {HOST: {"username": …, "password": …}}}; or, for Amazon ECR, {"name": "AWS", "spec": {"accessKeyId": …, '
    '"secretAccessKey": …, "account": …, "region": …}}.'
)


@dataclass(frozen=True, slots=True)
class Registry:
    host: str  # with its port, if it has one; as images name it
    username: str = field(repr=False)
    password: str = field(repr=False)
    is_plain_http: bool = False


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    access_key_id: str
    secret_access_key: str = field(repr=False)
    account: str
    region: str

    @property
    def host(self) -> str:
        return f"{self.account}.dkr.ecr.{self.region}.{self.domain}"

    @property
    def domain(self) -> str:
        return "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"


def check_options(options: Mapping[str, Any]) -> None:
    """Whether they have one of the shapes. Raises BadRequest, never with a value in its words."""
    read_options(options)


def read_options(options: Mapping[str, Any]) -> Registry | EcrRegistry:
    """`spec` may be a JSON text, as the vault keeps it. Raises BadRequest, never with a value in its words."""
    spec = options.get("spec")
    spec = _object(_json(spec) if isinstance(spec, str) else spec)
    if "password" in spec:
        return _read_docker_config(_decoded(spec["password"], "spec.password"))
    if spec.keys() & set(_ECR_OPTIONS):
        return _read_ecr(spec)
    raise _malformed("names neither a password nor the keys of Amazon ECR")


def _read_docker_config(text: str) -> Registry:
    auths = _object(_object(_json(text)).get("auths"))
    if len(auths) != 1:
        raise _malformed(f"has {len(auths)} hosts under auths, not one; make one integration for each")
    ((address, credentials),) = auths.items()
    host, is_plain_http = _read_address(address)
    username, password = _read_credentials(_object(credentials))
    return Registry(host, username, password, is_plain_http)


def _read_address(address: str) -> tuple[str, bool]:
    """The host that images name, and whether http:// was asked for."""
    scheme, found, rest = address.strip().lower().rpartition("://")
    host, slash, path = rest.partition("/")
    if (found and scheme not in ("http", "https")) or (slash and slash + path not in _HOST_ENDS):
        raise _malformed("names a registry that is not HOST or HOST:PORT, like docker.io or europe-docker.pkg.dev")
    try:
        endpoint = check_endpoint(f"https://{host}", allow_private=True)  # the connection decides about the address
    except BadRequest:
        raise _malformed(
            "names a registry that is not HOST or HOST:PORT, like docker.io or europe-docker.pkg.dev"
        ) from None
    host = endpoint.removeprefix("https://")
    return (DOCKER_HUB if host in _DOCKER_HUB_NAMES else host), scheme == "http"


def _read_credentials(given: Mapping[str, Any]) -> tuple[str, str]:
    """From username and password, or from auth (`USER:PASSWORD` in base64) when only that is there."""
    username, password = given.get("username"), given.get("password")
    if given.get("auth"):
        username_in_auth, _, password_in_auth = _decoded(given["auth"], "auth").partition(":")
        if (username or username_in_auth, password or password_in_auth) != (username_in_auth, password_in_auth):
            raise _malformed("has an auth that says something else than username and password")
        username, password = username_in_auth, password_in_auth
    if not (isinstance(username, str) and username and isinstance(password, str) and password):
        raise _malformed("lacks the username or the password")
    if ":" in username or not username.isprintable():
        raise _malformed("has a username with a colon or a control character")
    return username, password


def _read_ecr(spec: Mapping[str, Any]) -> EcrRegistry:
    texts = [spec.get(name) for name in _ECR_OPTIONS]
    if missing := [name for name, text in zip(_ECR_OPTIONS, texts, strict=True) if not _is_text(text)]:
        raise _malformed(f"lacks {', '.join(missing)}")
    key, secret, account, region = (str(text).strip() for text in texts)
    if not _ACCOUNT.fullmatch(account):
        raise _malformed("has an account that is not the 12 digits of an AWS account")
    if not _REGION.fullmatch(region):
        raise _malformed("has a region that is not one of AWS, like eu-central-1")
    if not (key + secret).isprintable() or not (key + secret).isascii():
        raise _malformed("has an access key that was copied wrongly: it holds a character that no key has")
    return EcrRegistry(key, secret, account, region)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _decoded(value: Any, name: str) -> str:
    try:
        return b64decode("".join(value.split()), validate=True).decode()
    except (AttributeError, binascii.Error, ValueError):
        raise _malformed(f"has a {name} that is not base64 of a text") from None


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        raise _malformed("holds something that is not JSON") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("holds something that is not a JSON object where one belongs")
    return cast("dict[str, Any]", value)


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"The private-registry integration {what}. {_SHAPES}")
