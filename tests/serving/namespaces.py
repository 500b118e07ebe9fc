"""Machines of their own on this one: network namespaces, each with a cable to the servers that can be pulled out."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

# Of the range for benchmarks of networks (RFC 2544), which nobody routes.
SERVERS = "198.18.77.1"
NETWORK = "198.18.77.0/24"


@dataclass(frozen=True, slots=True)
class Machine:
    namespace: str
    address: str
    cable: str  # our end

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    def pull_out(self) -> None:
        """What is on its way is lost, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self.cable, "up")
        _ip("route", "replace", f"{self.address}/32", "dev", self.cable, "src", SERVERS)


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """They reach what listens on SERVERS, and nothing else. Where we may not make any, the test is reported as not run;
    CI fails.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        _not_run("it needs root and Debian's package iproute2 (packages.txt)")
    made = [
        Machine(f"hw{os.getpid()}-{number}", f"198.18.77.{10 + number}", f"hw{os.getpid()}-{number}")
        for number in range(count)
    ]
    try:
        _ip("address", "replace", f"{SERVERS}/32", "dev", "lo")
        for machine in made:
            _make(machine)
    except subprocess.CalledProcessError as error:
        _remove(made)
        _not_run(f"this machine may not make network namespaces: {error.stderr.strip()}")
    try:
        yield made
    finally:
        _remove(made)


def _make(machine: Machine) -> None:
    name = machine.namespace
    _ip("netns", "add", name)
    _ip("link", "add", machine.cable, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", name, "address", "add", f"{machine.address}/32", "dev", "eth0")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "set", "eth0", "up")
    machine.plug_in()
    _ip("-n", name, "route", "add", f"{SERVERS}/32", "dev", "eth0", "src", machine.address)


def _remove(made: list[Machine]) -> None:
    for machine in made:
        for arguments in (("link", "delete", machine.cable), ("netns", "delete", machine.namespace)):
            subprocess.run(["ip", *arguments], check=False, capture_output=True)
    subprocess.run(["ip", "address", "delete", f"{SERVERS}/32", "dev", "lo"], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _not_run(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(f"not run: {why}")
