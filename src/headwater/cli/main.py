"""The command line. `headwater --help` tells; every listing has --json."""

import sys

import typer
from pydantic import ValidationError

from headwater.cli import (
    cloning,
    connecting,
    csv_imports,
    datasets,
    deleting,
    demo,
    doctor,
    downloading,
    drivers,
    events,
    exporting,
    ghosts,
    indexes,
    integrations,
    keys,
    listing,
    metadata,
    moving,
    notices,
    organizations,
    passwords,
    quota,
    registries,
    schedules,
    schema,
    sdk,
    serving,
    status,
    sync_rules,
    syncing,
    uploading,
    users,
    vault,
    verifying,
    webhooks,
)
from headwater.cli.output import fail
from headwater.errors import HeadwaterError

app = typer.Typer(
    name="headwater",
    help="Keep datasets of images, video and other files in step with cloud buckets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = {
    "Start here": {
        "demo": demo.demo_command,
        "connect": connecting.connect_command,
        "sync": syncing.sync_command,
        "sync-rules": sync_rules.sync_rules_command,
        "schedule": schedules.schedule_command,
        "status": status.status_command,
        "schema": schema.schema_command,
        "facets": schema.facets_command,
        "ls": listing.ls_command,
        "upload": uploading.upload_command,
        "download": downloading.download_command,
        "import-csv": csv_imports.import_csv_command,
        "export": exporting.export_command,
        "delete": deleting.delete_command,
        "clone": cloning.clone_command,
        "merge": cloning.merge_command,
        "move": moving.move_command,
        "mkdir": moving.mkdir_command,
        "verify": verifying.verify_command,
        "abort": syncing.abort_command,
        "notices": notices.notices_command,
        "doctor": doctor.doctor_command,
    },
    "The SDK and the API": {
        "sdk": sdk.sdk_command,
        "token": serving.token_command,
        "openapi": serving.openapi_command,
    },
    "The server": {
        "serve": serving.serve_command,
        "worker": serving.worker_command,
        "version": serving.version_command,
    },
}

for panel, commands in _COMMANDS.items():
    for name, function in commands.items():
        app.command(name, rich_help_panel=panel)(function)
app.add_typer(datasets.dataset_app, rich_help_panel="Start here")
app.add_typer(drivers.driver_app, rich_help_panel="Start here")
app.add_typer(ghosts.ghosts_app, rich_help_panel="Start here")
app.add_typer(metadata.metadata_app, rich_help_panel="Start here")
app.add_typer(indexes.index_app, rich_help_panel="Start here")
app.add_typer(webhooks.webhook_app, rich_help_panel="The SDK and the API")
app.add_typer(events.events_app, rich_help_panel="Start here")
users.user_app.command("password")(passwords.password_command)
for people in (
    users.user_app,
    organizations.org_app,
    organizations.project_app,
    organizations.invitation_app,
    keys.key_app,
    keys.bot_app,
):
    app.add_typer(people, rich_help_panel="People")
app.command("audit", rich_help_panel="People")(organizations.audit_command)
app.add_typer(integrations.integration_app, rich_help_panel="The server")
app.add_typer(vault.vault_app, rich_help_panel="The server")
app.add_typer(quota.quota_app, rich_help_panel="The server")
app.add_typer(registries.registry_app, rich_help_panel="The SDK and the API")


def run() -> None:
    """The entry point: an error that a person can act on is one sentence and exit code 1."""
    try:
        app()
    except HeadwaterError as error:
        fail(str(error))
    except ValidationError as error:
        problem = error.errors()[0]
        fail(f"The setting HEADWATER_{'_'.join(map(str, problem['loc'])).upper()} is not right: {problem['msg']}.")
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not type(error).__module__.startswith("psycopg"):  # which only some commands load
            raise
        fail(f"The database does not answer as it should: {str(error).strip()}")
