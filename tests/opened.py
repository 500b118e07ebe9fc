"""What is in the vault of an integration, for tests: the product itself opens secrets with no connection in hand."""

from typing import Any

from headwater.catalog import integrations


async def open_secret(conn: Any, vault: Any, integration_id: int) -> dict[str, str]:
    kept = await integrations.kept_secret(conn, integration_id)
    return {} if kept is None else await vault.open(kept)
