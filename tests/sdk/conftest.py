"""Runs scripts in the SDK's own environment, each in a process of its own, against a real server."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.buckets import Bucket, new_bucket
from tests.conftest import RunningServer
from tests.servers import S3Server

PYTHON = Path(__file__).resolve().parents[2] / ".venv-sdk/bin/python"

# What every script starts with. The values of `run_sdk` are its global names.
_BEFORE = '''
import json, sys, time
globals().update(json.loads(sys.stdin.read()))
import dtlpy as dl

dl.verbose.disable_progress_bar = True
dl.verbose.print_error_logs = False
dl.add_environment(environment=f"{url}/api/v1", alias="headwater", gate_url=url, url=f"{url}/", verify_ssl=False)
dl.setenv("headwater")

def answer(**found):
    print(json.dumps(found))

def until(condition, what, within_s=60):
    """The first true value of the condition."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)
    return value

def error_of(function, *arguments, **named):
    """[class, message] of the error that a call ends with."""
    try:
        function(*arguments, **named)
    except Exception as error:
        return [type(error).__name__, str(error)]

def synced(dataset):
    """The dataset, once no sync of it runs any more."""
    return until(lambda: None if (found := dl.datasets.get(dataset_id=dataset.id)).is_syncing else found, "synced")

def s3_driver(project, name, **options):
    """A driver on the bucket whose access the script was given."""
    integration = project.integrations.create(
        integrations_type=dl.IntegrationType.S3, name=f"{project.name} {name}", options={"key": key, "secret": secret})
    return project.drivers.create(
        name=name, driver_type=dl.ExternalStorage.S3, integration_id=integration.id, bucket_name=bucket,
        integration_type=dl.IntegrationType.S3, endpoint=endpoint, **options)

def folder_driver(project, name, path, **options):
    integration = project.integrations.create_hostpath(name=f"{project.name} {name}", path=path)
    return project.drivers.create_storage_driver(name=name, integration=integration, **options)

def filenames(pages):
    return sorted(item.filename for item in pages.all())
'''
_LOGGED_IN = "assert dl.login_m2m(email=email, password=password)\n"


@pytest.fixture
def run_sdk(server: RunningServer, tmp_path: Path) -> Callable[..., Any]:
    """`run_sdk(script, **values)`: the keywords of the script's last `answer(…)`."""

    def run(script: str, *, log_in: bool = True, **values: Any) -> Any:
        told = {"url": server.url, "email": server.email, "password": server.password} | values
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        ended = subprocess.run(
            [PYTHON, "-c", _BEFORE + (_LOGGED_IN if log_in else "") + dedent(script)],
            input=json.dumps(told),
            env=environment | {"DATALOOP_PATH": str(tmp_path / ".dataloop")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-6000:]}"
        return json.loads(ended.stdout.splitlines()[-1])

    return run


@pytest.fixture
def bucket(weed: S3Server) -> Bucket:
    return new_bucket(weed)
