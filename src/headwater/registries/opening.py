"""Opens a registry from the options and metadata of its integration."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from headwater.errors import BadRequest
from headwater.net.addresses import check_endpoint
from headwater.registries.client import ContainerRegistry, OciRegistry, api_host
from headwater.registries.ecr import EcrClient
from headwater.registries.options import EcrRegistry, Registry, read_options
from headwater.registries.transport import open_transport

CHECK_WITHIN_S = 10
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?")


@asynccontextmanager
async def open_registry(
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    allow_private: bool,
    within_s: float = CHECK_WITHIN_S,
) -> AsyncGenerator[ContainerRegistry]:
    """Everything asked of it ends within `within_s` together.

    Metadata that counts: `insecure` (true: plain http), `loginHost` (a host besides the registry's own that logs in for
    it), `endpoint` (of the ECR API). Raises BadRequest.
    """
    registry = read_options(options)
    async with open_transport(allow_private=allow_private, within_s=within_s) as transport:
        if isinstance(registry, EcrRegistry):
            yield EcrClient(transport, registry, _ecr_endpoint(metadata, allow_private=allow_private))
        else:
            yield OciRegistry(
                transport,
                registry,
                _endpoint(registry, metadata, allow_private=allow_private),
                login_host=_login_host(metadata),
            )


def _endpoint(registry: Registry, metadata: Mapping[str, Any], *, allow_private: bool) -> str:
    insecure = metadata.get("insecure", False)
    if not isinstance(insecure, bool):
        raise BadRequest("The integration's metadata.insecure is true (the registry speaks plain http) or false.")
    is_plain_http = registry.is_plain_http or insecure
    if is_plain_http and not allow_private:
        raise BadRequest(
            f"The registry {registry.host} is to be spoken to over plain http, where anybody on the way reads the "
            "password. Use https; inside a network of their own, the operator of this server can allow it: "
            "HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
        )
    url = f"{'http' if is_plain_http else 'https'}://{api_host(registry.host)}"
    return check_endpoint(url, allow_private=allow_private)


def _login_host(metadata: Mapping[str, Any]) -> str | None:
    named = metadata.get("loginHost")
    if named is not None and not (isinstance(named, str) and _HOST.fullmatch(named)):
        raise BadRequest("The integration's metadata.loginHost is a HOST or HOST:PORT, like auth.example.com.")
    return named.lower() if named else None


def _ecr_endpoint(metadata: Mapping[str, Any], *, allow_private: bool) -> str | None:
    endpoint = metadata.get("endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        return None
    if endpoint.startswith("http:") and not allow_private:
        raise BadRequest("The endpoint of the ECR API begins with http://. Use https://.")
    return check_endpoint(endpoint, allow_private=allow_private)
