"""One run on two machines: the same numbers as on one, and what happens when one of them is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgan.engine import checkpoint, files
from tests.conftest import ENVIRONMENT, ROOT, command, digits, result, run, same, wait_for
from tests.gan.test_train_gan import EVERYTHING
from tests.hosts import CABLE, Host, possible, two_hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not possible(), reason="needs iproute2 and the right to make network namespaces"),
]
SSHD = Path("/usr/sbin/sshd")
PATIENCE = 30
"""Seconds after which a machine that is cut off is given up."""
GONE = "error: another process of this run has ended or does not reply ("
ADVICE = "; run the same command on every machine to resume from the last checkpoint"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Sequence[Host]]:
    with two_hosts() as both:
        yield both


def launch(
    hosts: Sequence[Host], script: str, *options: str, processes: int = 2, patience: int = PATIENCE
) -> list[subprocess.Popen[str]]:
    """Start a script on `processes` processes of each host, as docs/machines.md says."""
    environment = ENVIRONMENT | {"GLOO_SOCKET_IFNAME": CABLE, "MMGAN_TIMEOUT": str(patience), "PYTHONPATH": str(ROOT)}
    first = ["--main_process_ip", hosts[0].address, "--main_process_port", "29500"]
    started = []
    for rank, host in enumerate(hosts):
        machines = ["--num_machines", str(len(hosts)), "--machine_rank", str(rank), *first]
        line = host.line(*command(script, *options, processes=processes * len(hosts), machines=machines))
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(line, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        )
    return started


def rest_of(started: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What each host's launcher still says; what the launcher reports beneath a process's own line is its own."""
    return [process.communicate(timeout=200)[0] for process in started]


def told(said: str) -> str:
    """The lines of error of a host's processes, which are the same but for the reason: a sibling may see one end."""
    lines = {line for line in said.splitlines() if line.startswith("error: ")}
    assert lines, said
    assert all(line.startswith(GONE) and line.endswith(ADVICE) for line in lines), said
    return "\n".join(lines)


def test_two_machines_get_the_gradient_of_one_process(hosts: Sequence[Host], tmp_path: Path) -> None:
    """The discriminator's, to 1e-5, on all of four processes."""
    lines = json.dumps([[*digits(tmp_path / "unused"), *parts] for parts in ([], EVERYTHING)])
    script = ["../tests/discriminator_gradient", lines, str(tmp_path)]
    assert run(*script).returncode == 0
    started = launch(hosts, *script)
    said = rest_of(started)
    assert [process.returncode for process in started] == [0, 0], said
    for i in range(2):
        one, *others = (
            torch.load(tmp_path / f"{i}-{of}.pt")["gradients"] for of in ("1-0", "4-0", "4-1", "4-2", "4-3")
        )
        torch.testing.assert_close(others[0], one, atol=1e-5, rtol=1e-5)
        assert all(same(others[0], other) for other in others[1:])


def test_a_run_on_two_machines_outlives_the_loss_of_either(hosts: Sequence[Host], tmp_path: Path) -> None:
    """It scores as one process does; a machine that is killed, or cut off, ends the other in time; then it resumes."""
    with tarfile.open(ROOT / "docs/results/extractors.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    extractor = [
        "--extractor",
        "Classifier",
        "--extractor.run",
        str(tmp_path / "digits-classifier"),
        "--num_samples",
        "50",
    ]
    scoring = [word.replace("--", "--score.") if word.startswith("--") else word for word in extractor]
    options = ["--batch_size", "8", "--steps", "80", "--log_every", "5", "--checkpoint_every", "10"]
    options += [*scoring, "--score.every", "40", "--score.final", "null"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    started = launch(hosts, "train_gan", *digits(whole), *options)
    said = rest_of(started)
    assert [process.returncode for process in started] == [0, 0], said
    assert run("score", str(whole), *extractor).returncode == 0
    rows = [row for row in result(whole)[1] if "score/fid" in row]
    alone = json.loads((whole / "scores.json").read_text())[-1]["scores"]
    assert rows[-1]["score/fid"] == pytest.approx(alone["fid"], rel=1e-5)

    started = launch(hosts, "train_gan", *digits(broken), *options)
    wait_for(started[0], "step 20/80")
    hosts[1].kill()
    said = rest_of(started)
    assert started[0].returncode == 1
    assert "imed out" not in told(said[0]), "a machine that is gone is noticed at once"

    started = launch(hosts, "train_gan", *digits(broken), *options)
    wait_for(started[0], "step 25/80")
    hosts[1].pull()
    try:
        said = rest_of(started)
    finally:
        hosts[1].plug()
    assert all("imed out" in told(one) for one in said), said

    started = launch(hosts, "train_gan", *digits(broken), *options)
    said = rest_of(started)
    assert "resuming after step" in said[0]
    assert same(result(whole), result(broken))


def test_a_folder_that_machines_do_not_share_gets_one_line(hosts: Sequence[Host], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    apart = [hosts[0], replace(hosts[1], own=tmp_path / "runs")]
    started = launch(apart, "train_gan", *digits(tmp_path / "runs" / "run"), processes=1, patience=15)
    said = rest_of(started)
    (line,) = (line for line in said[1].splitlines() if line.startswith("error: "))
    assert (
        line == f"error: {tmp_path}/runs/run is not the same folder on every machine; --output must be one they share"
    )
    assert told(said[0])


@pytest.fixture(scope="module")
def keys(hosts: Sequence[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an `ssh` that may log in to both hosts, on which servers of OpenSSH run."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = ["StrictModes=no", "UsePAM=no", "PidFile=none", f"AuthorizedKeysFile={folder / 'user.pub'}"]
    words = [word for setting in settings for word in ("-o", setting)]
    server = [str(SSHD), "-D", "-e", "-f", "/dev/null", "-h", str(folder / "host"), *words]
    servers = [subprocess.Popen(host.line(*server), stderr=subprocess.DEVNULL) for host in hosts]
    options = f"-F none -i {folder / 'user'} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    stand_in(folder / "ssh", f'exec {shutil.which("ssh")} {options} -o LogLevel=ERROR -o ConnectionAttempts=20 "$@"')
    yield folder
    for one in servers:
        one.terminate()
        one.wait()


def stand_in(file: Path, *lines: str) -> None:
    """A program made of lines of bash."""
    file.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    file.chmod(0o755)


def launched(host: Host, programs: Path, *line: str) -> subprocess.Popen[str]:
    """Start a launch file on a host, in a session of its own, as a terminal does."""
    environment = ENVIRONMENT | {"GLOO_SOCKET_IFNAME": CABLE, "PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "1234567"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(host.line("bash", *line), cwd=ROOT, env=environment, start_new_session=True, **pipes)


@pytest.fixture
def cluster(hosts: Sequence[Host], tmp_path: Path) -> Path:
    """A folder with stand-ins that do what srun and scontrol do on the nodes of a Slurm job."""
    nodes = (f'SLURM_NODEID={i} ip netns exec {host.name} "$@" &' for i, host in enumerate(hosts))
    # A signal to the job reaches every node.
    stand_in(tmp_path / "srun", "trap 'kill $(jobs -p)' TERM", *nodes, "until wait; do :; done")
    stand_in(tmp_path / "scontrol", *(f"echo {host.address}" for host in hosts))
    return tmp_path


@pytest.mark.parametrize(
    "file", [pytest.param("ssh", marks=pytest.mark.skipif(not SSHD.exists(), reason="needs OpenSSH's server")), "slurm"]
)
def test_a_launched_run_is_stopped_on_all_machines_and_resumed_by_the_same_command(
    file: str, hosts: Sequence[Host], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """By Ctrl-C, and by the signal that Slurm sends a minute before the time is over."""
    programs = request.getfixturevalue("keys" if file == "ssh" else "cluster")
    line = [f"docs/launch/{file}.sh", *([" ".join(host.address for host in hosts), "1"] if file == "ssh" else [])]
    line += ["scripts/train_gan.py", *digits(tmp_path / "a run"), "--batch_size", "8", "--steps", "300"]
    line += ["--log_every", "5"]
    stopped = launched(hosts[0], programs, *line)
    while not files.read_rows(tmp_path / "a run" / "metrics.jsonl"):
        assert stopped.poll() is None
        time.sleep(0.1)
    os.killpg(stopped.pid, signal.SIGINT) if file == "ssh" else stopped.terminate()
    said, _ = stopped.communicate(timeout=100)
    assert "steps/s" in said or "step/s" in said, "lines, and on a terminal the bar, are there"
    saved = checkpoint.steps(tmp_path / "a run" / "checkpoints")
    assert saved, said
    resumed = launched(hosts[0], programs, *line)
    said, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, said
    assert f"resuming after step {checkpoint.read(saved[-1]).step}" in said
    assert said.count("is finished") == 2
    assert json.loads((tmp_path / "a run" / "environment.json").read_text())[-1]["processes"] == 2


def test_ctrl_c_reaches_the_machines_that_are_left(hosts: Sequence[Host], tmp_path: Path) -> None:
    """The stand-in for ssh loses the first one, and waits for a key on the other."""
    lines = ['[ "$2" = one ] && exit 255', "sleep 1; echo ready", r"read -rn1 key; [ $key = $'\003' ] && echo stopped"]
    stand_in(tmp_path / "ssh", *lines)
    process = launched(hosts[0], tmp_path, "docs/launch/ssh.sh", "one two", "1", "scripts/train_gan.py")
    wait_for(process, "ready")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert said == "stopped\n"
    assert process.returncode


def test_a_process_whose_others_never_come_gets_one_line(hosts: Sequence[Host], tmp_path: Path) -> None:
    group = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29501"}
    line = hosts[0].line(*command("train_gan", *digits(tmp_path / "run")))
    environment = ENVIRONMENT | group | {"MMGAN_TIMEOUT": "2", "GLOO_SOCKET_IFNAME": CABLE}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if not line.startswith("[W"))  # what PyTorch warns of
    assert told(error)
    assert "1/2 clients" in error


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["ssh.sh"], "usage: bash docs/launch/ssh.sh"),
        (["ssh.sh", "node1", "1", "scripts/train_gan.py"], "error: for one process run the script itself"),
        (["slurm.sh"], "usage: sbatch docs/launch/slurm.sh"),
    ],
)
def test_a_launch_file_says_what_it_needs(line: Sequence[str], words: str, hosts: Sequence[Host]) -> None:
    process = launched(hosts[0], Path("/"), f"docs/launch/{line[0]}", *line[1:])
    said, _ = process.communicate()
    assert process.returncode == 2
    assert said.startswith(words)
