"""What to make in a cloud account so that a driver's bucket tells what happens in it."""

import shlex
from ipaddress import ip_address
from urllib.parse import urlsplit

from typing_extensions import TypedDict

from headwater.catalog.drivers import Driver
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.net.addresses import is_private
from headwater.storage.event_setup import setup
from headwater.storage.event_setup.setup import Cloud, Format, Source, Via

_DEFAULT_REGION = "us-east-1"


class SetupJson(TypedDict):
    driverId: str
    format: str
    text: str  # to be pasted, or run
    ways: dict[str, list[str]]  # what `via` may be, and as what each can be printed
    warning: str | None


def source(driver: Driver, *, account: str, hook: str, audience: str) -> Source:
    """Raises BadRequest for a driver of a folder."""
    return Source(
        cloud=cloud_of(driver),
        driver_id=driver.id,
        driver=driver.name,
        bucket=driver.root,
        prefix=driver.prefix,
        region=driver.region or _DEFAULT_REGION,
        hook=hook,
        audience=audience,
        endpoint=driver.endpoint,
        account=account,
        has_folders=driver.kind == "azureDatalakeGen2",
    )


def cloud_of(driver: Driver) -> Cloud:
    """Raises BadRequest."""
    if driver.kind == "gcs":
        return "gcs"
    if driver.kind in ("azureblob", "azureDatalakeGen2"):
        return "azure"
    if driver.integration_kind in ("hostPath", "nfs"):
        raise BadRequest(
            f"Driver {driver.name!r} is a folder, which tells nobody what happens in it. Sync it at set times: "
            "headwater schedule."
        )
    host = urlsplit(driver.endpoint or "").hostname
    return "aws" if host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "s3"


def answer(found: Source, via: Via | None, format_: Format, *, is_on: bool) -> SetupJson:
    """`is_on`: whether the hook answers. Raises BadRequest."""
    text = setup.text(found, via, format_)
    return SetupJson(
        driverId=to_wire(found.driver_id),
        format=format_,
        text=text,
        ways={via: list(formats) for via, formats in setup.ways(found.cloud).items()},
        warning=_warning(found, is_on=is_on) if found.hook in text else None,
    )


def _warning(found: Source, *, is_on: bool) -> str | None:
    host = urlsplit(found.hook).hostname or ""
    if found.cloud == "s3" or not _is_inner(host):
        if is_on:
            return None
        return (
            "Clouds ask the hook at once whether it wants events, so switch them on first: "
            f"headwater events on {shlex.quote(found.driver)}"
        )
    hint = " Or let it read a queue: --via queue." if "queue" in setup.ways(found.cloud) else ""
    return (
        f"The address of this server, {host}, cannot be reached from a cloud. Its operator gives it one that can: "
        f"HEADWATER_PUBLIC_URL=https://…{hint}"
    )


def _is_inner(host: str) -> bool:
    try:
        return is_private(ip_address(host))
    except ValueError:
        return "." not in host
