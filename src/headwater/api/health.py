"""Whether the server lives, and whether it can work."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from headwater.api.caller import ServerDep, needs

router = APIRouter(tags=["health"])


@router.get("/healthz", openapi_extra=needs("anybody"))
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=needs("anybody"))
async def readyz(server: ServerDep) -> JSONResponse:
    """The database answers too; 503 while it does not."""
    async with server.place.pool.connection(timeout=2) as conn:
        await conn.execute("SELECT FROM organization LIMIT 1")
    return JSONResponse({"status": "ready"})
