"""A sweep on a PostgreSQL server: workers on two hosts, and the server, killed at any time."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError
from sqlalchemy.orm import Session

from mmgan.experiments.sweep import away, network_file_system
from tests.conftest import ENVIRONMENT, ROOT, command, result, same, train, wait_for
from tests.experiments.test_sweep import DONE, STEPS, quick, sweep, until_told, worker
from tests.hosts import Host, possible, two_hosts

pytestmark = pytest.mark.slow

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
needs_servers = pytest.mark.skipif(
    not (possible() and (BINARIES / "postgres").exists()), reason="needs iproute2, postgresql, and to be root"
)


class Server:
    """A PostgreSQL server on a host, with a database of its own, that can be killed and started again."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.data = host, folder / "data"
        shutil.chown(folder, "postgres")
        self._as_postgres("initdb", "--auth=trust", "--no-sync", f"--pgdata={self.data}").communicate()
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.77.0.0/24 trust\n")
        self.url = f"postgresql://postgres@{host.address}/postgres"
        self.local = f"postgresql://postgres@/postgres?host={folder}"
        """By a socket, which other hosts of this machine see too."""
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-c", "listen_addresses=*", "-c", "max_connections=40", "-k", str(self.data.parent)]
        while True:  # processes of a killed server may still be running
            self.process = self._as_postgres("postgres", "-D", str(self.data), *options)
            while self.process.poll() is None:
                if self._as_postgres("pg_isready", "-q", "-h", self.host.address).wait() == 0:
                    return
                time.sleep(0.1)

    def kill(self) -> None:
        """As when its machine loses power, but that its disk is whole."""
        self.process.kill()
        self.process.wait()

    def _as_postgres(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", str(BINARIES / name)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.host.line(*user, *options), stdout=quiet, stderr=quiet, cwd="/")


@pytest.fixture
def hosts() -> Iterator[Sequence[Host]]:
    with two_hosts() as both:
        yield both


@pytest.fixture
def server(hosts: Sequence[Host]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        made = Server(hosts[0], Path(folder))
        yield made
        made.kill()


def sweeper(host: Host, *options: str) -> subprocess.Popen[str]:
    line = host.line(*command("sweep", *options))
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.STDOUT, text=True)


@needs_servers
def test_workers_on_two_hosts_and_the_server_are_killed_and_every_run_is_done_once(
    hosts: Sequence[Host], server: Server, tmp_path: Path
) -> None:
    seeds = list(range(3))
    grids = [{"mixup": [None], "seed": seeds}, {"mixup.alpha": [0.5], "mixup.layers": [[0, 1]], "seed": seeds}]
    options = [*sweep(tmp_path, grids=grids), "--storage", server.url]
    workers = [sweeper(hosts[i % 2], *options) for i in range(4)]
    chance = random.Random(time.time_ns())
    for _ in range(10):
        time.sleep(chance.uniform(0.5, 4))
        i = chance.randrange(6)
        if i < len(workers):
            workers[i].kill()
            workers[i].communicate()
            workers[i] = sweeper(hosts[i % 2], *options)
        else:
            server.kill()
            time.sleep(chance.uniform(0, 3))
            server.start()
    said = [one.communicate(timeout=300)[0] for one in workers]
    assert not [text for one, text in zip(workers, said, strict=True) if one.returncode]
    assert all(text.splitlines()[-1] == "6 jobs: 6 done" for text in said)
    ended = "select value_json from trials join trial_user_attributes using (trial_id) where state = 'COMPLETE'"
    with psycopg.connect(server.local) as database:
        jobs = [json.loads(job)["name"] for (job,) in database.execute(f"{ended} and key = 'job'").fetchall()]
    assert len(jobs) == len(set(jobs)) == 6
    plain = ["--mixup.alpha", "0.5", "--mixup.layers", "[0,1]", "--seed", "1", "--steps", str(STEPS)]
    train(tmp_path / "alone", *plain, "--log_every", "5", "--checkpoint_every", "10")
    assert same(result(tmp_path / "alone"), result(tmp_path / "runs" / "alpha-0.5_layers-0-1" / "seed-1"))


@needs_servers
def test_a_connection_that_is_lost_within_a_transaction_is_waited_for(server: Server) -> None:
    """SQLAlchemy then refuses everything else in that transaction, with an error of another kind."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(server.local))
    with Session(engine) as session:
        own = session.execute(text("select pg_backend_pid()")).scalar_one()
        with psycopg.connect(server.local) as other:
            other.execute("select pg_terminate_backend(%s)", [own])
        with pytest.raises(OperationalError) as lost:
            session.execute(text("select 1"))
        with pytest.raises(PendingRollbackError) as refused:
            session.execute(text("select 1"))
    engine.dispose()
    assert away(server.url, lost.value)
    assert away(server.url, refused.value)
    assert not away(server.url, ValueError())


@needs_servers
def test_a_server_that_is_away_is_waited_for(hosts: Sequence[Host], server: Server, tmp_path: Path) -> None:
    server.kill()
    one = worker(quick(tmp_path, "time.sleep(3)"), tmp_path / "runs", 9, server.url, host=hosts[1])
    for words in ("Connection refused", "a: started", "Connection refused"):
        if words == "a: started":
            server.start()
        wait_for(one, words)
        if words == "a: started":
            server.kill()
    server.start()
    said, _ = one.communicate(timeout=100)
    assert said.splitlines()[-1] == str(DONE)
    assert all((tmp_path / "runs" / name / "starts").read_text() == "x" for name in "ab")


@needs_servers
def test_a_host_that_is_cut_off_from_the_server_waits_for_it(
    hosts: Sequence[Host], server: Server, tmp_path: Path
) -> None:
    one = worker(quick(tmp_path, "time.sleep(3)"), tmp_path / "runs", 9, server.url, host=hosts[1])
    wait_for(one, "a: started")
    hosts[1].pull()
    wait_for(one, "waiting for it")
    hosts[1].plug()
    said, _ = one.communicate(timeout=100)
    assert said.splitlines()[-1] == str(DONE)


@needs_servers
def test_an_outage_longer_than_the_timeout_takes_no_job_from_a_worker(
    hosts: Sequence[Host], server: Server, tmp_path: Path
) -> None:
    """Neither the waiting worker nor one that comes afterwards does again what is being done."""
    script, output = quick(tmp_path, *until_told(tmp_path)), tmp_path / "runs"
    one, other = (worker(script, output, 2, server.url, host=host) for host in hosts)
    wait_for(one, "at work")
    wait_for(other, "at work")
    server.kill()
    time.sleep(5)
    server.start()
    late = worker(script, output, 2, server.url, host=hosts[0])
    wait_for(late, "waiting for other workers")
    time.sleep(3)
    (tmp_path / "go").touch()
    ended = [process.communicate(timeout=100)[0] for process in (one, other, late)]
    assert [said.splitlines()[-1] for said in ended] == [str(DONE)] * 3
    assert [(output / name / "starts").read_text() for name in "ab"] == ["x", "x"]


@needs_servers
def test_a_worker_that_is_stopped_while_it_waits_for_the_server_ends_as_by_the_signal(
    hosts: Sequence[Host], server: Server, tmp_path: Path
) -> None:
    options = [*sweep(tmp_path, grids=[{"mixup": [None], "seed": [0]}]), "--storage", server.url]
    one = sweeper(hosts[1], *options)
    wait_for(one, "seed-0: started")  # it takes a while to its end
    server.kill()
    wait_for(one, "waiting for it")
    one.send_signal(signal.SIGTERM)
    said, _ = one.communicate(timeout=60)
    assert one.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("error: storage postgresql://postgres@10.77.0.1/postgres failed: ")


@needs_servers
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://postgres:secret@10.77.0.1/nothing", 'FATAL:  database "nothing" does not exist'),
        ("postgresql://nobody:secret@10.77.0.1/postgres", 'FATAL:  role "nobody" does not exist'),
        (
            "postgresql://postgres:secret@10.77.0.1/postgres?sslmode=require",
            "server does not support SSL, but SSL was required",
        ),
        ("postgresql://postgres:secret@10.77.0.1/postgres?sslmode=no", 'invalid sslmode value: "no"'),
    ],
)
def test_what_waiting_does_not_put_right_gets_one_line(
    url: str, words: str, hosts: Sequence[Host], tmp_path: Path
) -> None:
    said, _ = worker(quick(tmp_path), tmp_path / "runs", 9, url, host=hosts[0]).communicate(timeout=60)
    (line,) = said.splitlines()
    assert line.startswith("error: storage postgresql://")
    assert words in line
    assert "the runs are kept: fix that and run the same command again" in line
    assert "secret" not in line


def test_a_file_on_a_network_file_system_is_known_by_its_mount() -> None:
    mounts = [
        ("/", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/scratch", "xfs"),
        ("/data", "fuse.sshfs"),
        ("/share", "autofs"),
        ("/share", "cifs"),
        ("/vol", "fuse.glusterfs"),
    ]
    kinds = {path: network_file_system(Path(path), mounts) for path in ("/home/me", "/home/me/scratch/a", "/data/b")}
    assert kinds == {"/home/me": "nfs4", "/home/me/scratch/a": None, "/data/b": "fuse.sshfs"}
    assert network_file_system(Path("/vol/runs"), mounts) == "fuse.glusterfs"
    assert network_file_system(Path("/share/runs"), mounts) == "cifs"
    assert network_file_system(Path("/homes"), mounts) is None
