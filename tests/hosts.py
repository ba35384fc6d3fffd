"""Two hosts on one machine: network namespaces with an address each, and a cable between them that can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CABLE = "cable"
"""The name of either end."""


@dataclass(frozen=True)
class Host:
    """One of them."""

    name: str
    address: str
    own: Path | None = None
    """A folder that it does not share with others: a disk of its own, empty for every command."""

    def line(self, *command: str) -> list[str]:
        """The command line that runs `command` on it."""
        mounted = ["sh", "-c", 'mount -t tmpfs own "$0" && exec "$@"', str(self.own)] if self.own else []
        return ["ip", "netns", "exec", self.name, *mounted, *command]

    def pull(self) -> None:
        """Take its end of the cable out."""
        _ip("-n", self.name, "link", "set", CABLE, "down")

    def plug(self) -> None:
        """Put it back."""
        _ip("-n", self.name, "link", "set", CABLE, "up")

    def kill(self) -> None:
        """Kill all that runs on it."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        if numbers := found.stdout.split():
            subprocess.run(["kill", "-KILL", *numbers], stderr=subprocess.DEVNULL, check=False)  # some have just ended


def possible() -> bool:
    """Whether this machine lets us make them."""
    if os.geteuid() or not shutil.which("ip"):
        return False
    name = f"mmgan-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


@contextmanager
def two_hosts() -> Iterator[Sequence[Host]]:
    """Two of them, which are removed in the end with all that runs on them."""
    hosts = [Host(f"mmgan-{os.getpid()}-{i}", f"10.77.0.{i}") for i in (1, 2)]
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
        _ip("link", "add", CABLE, "netns", hosts[0].name, "type", "veth", "peer", CABLE, "netns", hosts[1].name)
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in hosts:
            host.kill()
            subprocess.run(["ip", "netns", "del", host.name], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
