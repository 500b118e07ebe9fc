"""The HTTP application: routes put together with what they work on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from headwater import __version__
from headwater.api import (
    accounts,
    annotations,
    api_keys,
    audit,
    bots,
    browser,
    bulk_metadata,
    checks,
    cloning,
    commands,
    csv_imports,
    datasets,
    deletions,
    driver_events,
    drivers,
    event_queues,
    event_setup,
    exports,
    facets,
    features,
    folders,
    ghosts,
    health,
    hooks,
    imports,
    inbox,
    indexes,
    integrations,
    item_collections,
    items,
    login,
    metrics,
    notifications,
    projects,
    queries,
    quotas,
    recipes,
    registries,
    schedules,
    schema,
    streams,
    sync_rules,
    tus,
    upload_plans,
    uploads,
    verification,
    webhooks,
)
from headwater.api.bodies import BodyLimit
from headwater.api.caller import Server
from headwater.api.failures import RESPONSES, add_handlers
from headwater.catalog.columns import evaluating
from headwater.catalog.columns.cache import Columns
from headwater.settings import Settings
from headwater.tokens import Signer
from headwater.work.openid import OpenIdProvider
from headwater.work.sign_in import Passwords
from headwater.work.tus import Receptions
from headwater.workplace import load_signing_key, open_workplace

_DESCRIPTION = """
Headwater keeps datasets in step with cloud buckets. It answers the protocol of the `dtlpy` SDK.

Every route but the log-in needs the header `authorization: Bearer TOKEN`. Every error is `{"message": sentence}`.
"""


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """Connects when it starts to serve, not before."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_workplace(settings, database_url, name="headwater-api", max_connections=20) as place:
            app.state.server = Server(
                settings=settings,
                signer=Signer(load_signing_key(settings)),
                vault=place.vault,
                place=place,
                passwords=Passwords(place.pool),
                openid=None if settings.oidc_issuer is None else OpenIdProvider(settings),
                columns=Columns(most_bytes=settings.column_cache_bytes),
            )
            app.state.news = notifications.News()
            app.state.doors = hooks.Doors(app.state.server)
            app.state.receptions = Receptions(place, expires_in_s=settings.upload_expiry_h * 3600)
            app.state.gate = streams.Gate(app.state.server)
            listening = asyncio.create_task(app.state.news.run(database_url))
            app.state.warming = asyncio.create_task(asyncio.to_thread(evaluating.warm))
            yield
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    app = FastAPIOffline(  # the docs page brings its scripts along: many servers see no internet
        title="Headwater",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url="/api/v1/docs",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url="/api/v1/docs/oauth2-redirect",
        static_url="/api/v1/docs/assets",
        responses=RESPONSES,
        lifespan=lifespan,
    )
    add_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(tus.Protocol)
    app.router.routes[:0] = streams.router.routes  # first: they are asked most, and routes are tried in order
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(login.gate)
    app.include_router(browser.router)
    for noun in (
        accounts,
        login,
        audit,
        api_keys,
        bots,
        projects,
        integrations,
        registries,
        drivers,
        driver_events,
        hooks,
        checks,
        event_queues,
        event_setup,
        cloning,
        exports,
        folders,
        datasets,
        recipes,
        schema,
        facets,
        queries,
        deletions,
        csv_imports,
        verification,
        indexes,
        schedules,
        sync_rules,
        ghosts,
        imports,
        bulk_metadata,
        item_collections,
        features,
        upload_plans,
        uploads,
        tus,
        items,
        annotations,
        commands,
        quotas,
        notifications,
        inbox,
        webhooks,
    ):
        app.include_router(noun.router, prefix="/api/v1")
    return app
