"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where Headwater keeps its own data (HEADWATER_DATA_DIR)."),
]
ServerDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Speak to the server on this data directory, as its operator. Without it: to HEADWATER_URL with "
        "HEADWATER_TOKEN, or else to the server on the default data directory.",
    ),
]
Organization = Annotated[
    str | None, typer.Option("--org", metavar="NAME", help="Which organisation; without it, your first one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Key = Annotated[str | None, typer.Option("--key", help="S3 access key id (AWS_ACCESS_KEY_ID).")]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        help="S3 secret key, or Azure account key or SAS; others see options, so better by AWS_SECRET_ACCESS_KEY or "
        "AZURE_STORAGE_KEY.",
    ),
]
SessionToken = Annotated[str | None, typer.Option("--session-token", help="Of temporary keys (AWS_SESSION_TOKEN).")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help="A Google service account's JSON key (GOOGLE_APPLICATION_CREDENTIALS)."
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint", metavar="URL", help="Address of a store that is not the cloud's own (AWS_ENDPOINT_URL)."
    ),
]
Region = Annotated[str | None, typer.Option("--region", help="Region of the bucket (AWS_REGION).")]


def settings_with(data_dir: Path | None, **given: Any) -> Settings:
    """The environment's settings, with what was given on the command line over them."""
    values: dict[str, Any] = {"data_dir": data_dir, **given}
    return Settings(**{name: value for name, value in values.items() if value is not None})
