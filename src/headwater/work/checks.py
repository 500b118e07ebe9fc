"""Checks of drivers: tries on the bucket what will be done with it, through the same code."""

from typing import Any

from headwater.catalog.drivers import Driver
from headwater.work.workplace import Workplace


async def check_new(place: Workplace, driver: Driver) -> dict[str, Any]:
    """The report on a driver that is to be made. Raises what stands in its way."""
    store = await place.places.open(driver)
    try:
        await store.check_listing()
    finally:
        await store.close()
    return {"checks": [{"name": "list", "ok": True}]}
