"""Scripts run as `python SCRIPT` runs them, in forks of a process that has already imported what takes seconds.

The program below waits for command lines on a socket, and forks for each. `Forks` starts it and asks it.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = (
    "torch",
    "torch._dynamo",
    "torchvision.utils",
    "torchvision.transforms.v2.functional",
    "torch_fidelity",
    "accelerate",
    "jsonargparse",
    "ruamel.yaml",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "scipy.stats",
    "scipy.optimize",
)
"""None of our own modules, whose imports are part of what is tested."""
GRACE = 10
"""Seconds that the other processes of a group have when one has failed."""


class Forks:
    """Starts the program on first use."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self.process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        line: Sequence[str],
        environment: Mapping[str, str],
        timeout: float,
        folder: Path | None = None,
        processes: int = 1,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, `line` being its file and its arguments, to its end, as `subprocess.run` does.

        `folder` is the one it runs in, if not that of the program. Several `processes` are told of each other as by
        `accelerate launch`; when one fails, the others have a few seconds to end. Of what `environment` says of Python
        itself, PYTHONPATH alone may differ from what the program was started with.
        """
        each: list[Mapping[str, str]] = [environment]
        if processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = str(free.getsockname()[1])
            group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_MIXED_PRECISION": "no"}
            group |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            ranks = map(str, range(processes))
            each = [{**environment, **group, "RANK": rank, "LOCAL_RANK": rank} for rank in ranks]
        if not self.process:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    cwd=self.folder,
                    env=self.environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            message = json.dumps([line, [{**one} for one in each], str(folder or self.folder)])
            socket.send_fds(self.socket, [message.encode()], [out.fileno(), err.fileno()])
            self.socket.settimeout(timeout)
            try:
                code = int(self.socket.recv(64))
            except TimeoutError as error:
                self.stop()
                raise subprocess.TimeoutExpired(line, timeout) from error
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(line, code, out.read(), err.read())

    def stop(self) -> None:
        """End the program and whatever it still runs."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.socket.close()
            self.process = None


def _serve(connection: socket.socket) -> None:
    """Answer each command line with its exit code, as `subprocess` gives it; in a fork, return."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 2**20, 2)
        if not message:
            os._exit(0)
        line, environments, folder = json.loads(message)
        children = set()
        for environment in environments:
            if child := os.fork():
                children.add(child)
                continue
            for number, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, number)
            for descriptor in (*descriptors, connection.detach()):
                os.close(descriptor)
            sys.argv = line
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            return
        code = _ended(children)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(code).encode())


def _ended(children: set[int]) -> int:
    """The exit code of the first process that failed, of which the others are killed some seconds later; else 0."""
    code = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not code:
            code = os.waitstatus_to_exitcode(status)

            def kill(*_: object) -> None:
                for one in children:
                    os.kill(one, signal.SIGKILL)

            signal.signal(signal.SIGALRM, kill)
            signal.alarm(GRACE)
    signal.alarm(0)
    return code


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    started = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    rest = [entry for entry in sys.path[1:] if entry not in started]
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [str(Path(sys.argv[0]).resolve().parent), *named, *rest]
    runpy.run_path(sys.argv[0], run_name="__main__")
