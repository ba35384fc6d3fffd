"""Runs pushed to a Hub, a small server on loopback, and opened from it, from its cache and from folders of its form."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from torch import nn

import mmgan
from mmgan.errors import UserError
from mmgan.gan.run import GANRun
from tests.conftest import ENVIRONMENT, ROOT, run
from tests.test_api import SHORT

pytestmark = pytest.mark.slow

TOKEN = "hf_aTokenThatNobodyMaySee"
HALVES = "tests.test_api.Halves"
FILES = ["README.md", "config.yaml", "discriminator.safetensors", "generator.safetensors", "mmgan.json", "samples.png"]


def train(config: dict[str, Any], folder: Path) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    mmgan.train(config, folder)
    return folder


def means() -> nn.Module:
    """An extractor: the means of the quarters of an image."""
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an average, and scores of its last checkpoint."""
    folder = train(SHORT | {"ema": 0.5, "checkpoint_every": 2}, tmp_path_factory.mktemp("hub") / "secret" / "run")
    mmgan.score(folder, "digits", means(), metrics="fid,kid", num_samples=100, seeds=[0, 1])
    mmgan.score(f"{folder}:2", "digits", means(), metrics="fid", num_samples=100)
    mmgan.score(folder, "digits", means(), metrics="fid", num_samples=100, weights="raw")
    return folder


@pytest.fixture(scope="module")
def pushed(trained: Path) -> Path:
    return Path(mmgan.push(trained, "user/digits", dry_run=trained.parent / "pushed"))


def same(a: GANRun, b: GANRun) -> bool:
    """Whether two runs have the same networks, to the bit."""
    x = torch.randn(4, *a.shape, generator=torch.Generator().manual_seed(0))
    return (
        (a.config.generator, a.step, a.weights, a.shape, a.inputs)
        == (b.config.generator, b.step, b.weights, b.shape, b.inputs)
        and torch.equal(a.sample(8, seed=1), b.sample(8, seed=1))
        and torch.equal(a.discriminator(x), b.discriminator(x))
    )


# Folders


def test_a_folder_has_the_networks_of_the_run(trained: Path, pushed: Path) -> None:
    assert sorted(path.name for path in pushed.iterdir()) == sorted([*FILES, "scores.json"])
    assert same(mmgan.load(pushed), mmgan.load(trained))
    assert same(mmgan.load(str(pushed), 3, "ema"), mmgan.load(trained, weights="ema"))
    again = mmgan.push(str(pushed), "user/digits", dry_run=pushed.parent / "again")
    assert same(mmgan.load(again), mmgan.load(trained))
    with Image.open(pushed / "samples.png") as grid:
        assert grid.size == (10 * 34 + 2, 10 * 34 + 2)


def test_any_checkpoint_and_either_weights_can_be_pushed(trained: Path, tmp_path: Path) -> None:
    for checkpoint, weights in ((2, "ema"), (3, "raw")):
        opened = mmgan.load(trained, checkpoint, weights)  # type: ignore[arg-type]
        again = mmgan.load(mmgan.push(opened, "user/digits", tmp_path / weights))
        assert (again.step, again.weights) == (checkpoint, weights)
        assert same(again, opened)


def test_the_scores_are_those_of_the_weights(trained: Path, pushed: Path) -> None:
    (record,) = mmgan.load(pushed).scores
    assert record == mmgan.load(trained).scores[0] | {"fake": record["fake"]}
    assert record["stamp"]["generator"] == "ema"
    (kept,) = json.loads((pushed / "scores.json").read_text())
    assert kept["fake"]["name"] == "run:last"


def test_no_path_of_the_machine_is_pushed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["init_from"] = "/home/secret/first"
    (tmp_path / "run" / "config.yaml").write_text(f"# default: /home/secret\n{yaml.safe_dump(config)}")
    folder = Path(mmgan.push(tmp_path / "run", "user/digits", tmp_path / "pushed"))
    for path in folder.iterdir():
        assert b"secret" not in path.read_bytes(), path
        assert str(ROOT).encode() not in path.read_bytes(), path
    card = (folder / "README.md").read_text()
    assert "another run, `first`" in card
    assert mmgan.load(folder).config.init_from == "first"


def test_the_card_is_made_from_the_records(trained: Path, pushed: Path) -> None:
    card = (pushed / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["library_name"], head["license"]) == ("mmgan", "mit")
    assert head["pipeline_tag"] == "unconditional-image-generation"
    assert "trained with mmgan on `digits`, with mixup in the discriminator" in card
    assert "after 3 of 3 generator steps" in card
    assert "the average of its weights" in card
    assert f"| `mixup` | `{mmgan.load(trained).config.mixup}` |" in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card
    scores = mmgan.load(trained).scores[0]["scores"]
    assert f"{scores['fid']:.4g} +- {scores['fid_std']:.2g}" in card
    assert "mean +- standard deviation over seeds 0, 1" in card
    assert "floor: 100 real images" in card
    assert "features of Sequential are comparable only with each other, not with published scores" in card


def test_the_card_of_a_run_that_was_not_scored_says_so(trained: Path, tmp_path: Path) -> None:
    mmgan.push(mmgan.load(trained, 2, "raw"), "user/digits", tmp_path, licence="cc-by-4.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    card = (tmp_path / "README.md").read_text()
    assert "These weights were not scored." in card
    assert "license: cc-by-4.0\n" in card
    assert mmgan.load(tmp_path).scores == []


def three_lines(card: str) -> str:
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(lines.splitlines()) == 3
    return str(lines)


def test_a_conditional_run_keeps_its_classes(tmp_path: Path) -> None:
    opened = mmgan.load(train(SHORT | {"conditional": "matched"}, tmp_path / "run"))
    folder = Path(mmgan.push(opened, "user/digits", tmp_path / "pushed"))
    again = mmgan.load(folder)
    assert again.inputs == opened.inputs
    assert torch.equal(again.sample(5, classes=["3", 7]), opened.sample(5, classes=["3", 7]))
    x, y = torch.randn(5, *opened.shape), again.inputs.vectors(torch.arange(5))
    assert all(map(torch.equal, again.discriminator(x, y=y), opened.discriminator(x, y=y)))
    card = (folder / "README.md").read_text()
    assert "A class-conditional GAN" in card
    assert "There are 10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card


def test_code_that_is_not_mmgan_s_needs_trust(tmp_path: Path) -> None:
    config = SHORT | {"mixup": {"class_path": HALVES, "init_args": {"layers": [1]}}}
    AcceleratorState._reset_state(reset_partial_state=True)
    mmgan.train(config, tmp_path / "run", trust=True)
    folder = mmgan.push(mmgan.load(tmp_path / "run", trust=True), "user/digits", tmp_path / "pushed")
    card = (Path(folder) / "README.md").read_text()
    assert 'mmgan.load("user/digits", trust=True)' in three_lines(card)
    assert f"must be importable: {HALVES}." in card
    code = f"import mmgan\ntry: mmgan.load({folder!r})\nexcept mmgan.UserError as error: print(error)"
    code += f"\nprint(mmgan.load({folder!r}, trust=True).config.mixup)"
    said = python(code, {}).splitlines()
    assert said[0].startswith(f"{HALVES} is not part of mmgan")
    assert said[1].startswith("Halves(")


def test_scripts_take_a_folder_like_a_run(trained: Path, tmp_path: Path) -> None:
    done = run("push", str(trained), "user/digits", "--dry_run", str(tmp_path / "pushed"), "--checkpoint", "2")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'pushed'}\n"), done.stderr
    done = run("sample_gan", str(tmp_path / "pushed"), "--checkpoint", "2", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "pushed" / "samples.png").read_bytes()
    record = mmgan.score(tmp_path / "pushed", "digits", means(), metrics="fid", num_samples=100)
    theirs = [one for one in mmgan.load(trained).scores if one["checkpoint"] == 2]
    assert (record["step"], record["scores"]) == (2, theirs[0]["scores"])


# Mistakes and damage


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        use()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_what_a_folder_does_not_hold_is_refused(pushed: Path) -> None:
    for which in ("best", 2):
        said = refused(lambda which=which: mmgan.load(pushed, which))  # type: ignore[misc]
        assert f"has one checkpoint, of step 3, and not {which}; use last" in said
    assert "has only the average" in refused(lambda: mmgan.load(pushed, weights="raw"))
    assert "has no revision" in refused(lambda: mmgan.load(pushed, revision="v1"))


def changed(file: Path, **facts: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of the weights": (
        lambda folder: (folder / "generator.safetensors").write_bytes(
            (folder / "generator.safetensors").read_bytes()[:-1] + b"\x99"
        ),
        "generator.safetensors does not match its checksum",
    ),
    "half of the weights": (
        lambda folder: os.truncate(folder / "discriminator.safetensors", 999),
        "discriminator.safetensors does not match its checksum",
    ),
    "no weights": (lambda folder: (folder / "generator.safetensors").unlink(), "cannot read .*generator.safetensors"),
    "no facts": (lambda folder: (folder / "mmgan.json").write_text("{"), "mmgan.json is damaged"),
    "another form of facts": (lambda folder: (folder / "mmgan.json").write_text("[]"), "pushed is damaged"),
    "other facts": (lambda folder: (folder / "mmgan.json").write_text("{}"), "pushed is damaged"),
    "a later format": (lambda folder: changed(folder / "mmgan.json", format=2), "of format 2; this version .* reads 1"),
    "a step of text": (lambda folder: changed(folder / "mmgan.json", step="3"), "mmgan.json lacks required entries"),
    "other files": (lambda folder: changed(folder / "mmgan.json", sha256={"../x": ""}), "lacks required entries"),
    "no channels": (
        lambda folder: changed(folder / "mmgan.json", channels=None),
        "mmgan.json is damaged: its channels",
    ),
    "another size": (lambda folder: changed(folder / "mmgan.json", channels=3), "holds a different ema"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(name: str, pushed: Path, tmp_path: Path) -> None:
    damage, words = DAMAGE[name]
    folder = shutil.copytree(pushed, tmp_path / "pushed")
    damage(folder)
    assert re.search(words, refused(lambda: mmgan.load(folder)))


@pytest.mark.parametrize("names", [["../../x", "b"], ["..", "b"], [1, 2], ["a"]])
def test_classes_that_no_run_has_are_refused(names: list[Any], pushed: Path, tmp_path: Path) -> None:
    """Folders are named after classes, so that one from the Hub may not lead out of where samples are written."""
    folder = shutil.copytree(pushed, tmp_path / "pushed")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"conditional": "uniform"}))
    changed(folder / "mmgan.json", classes=names, weights=[1, 1])
    assert "mmgan.json is damaged: its classes are" in refused(lambda: mmgan.load(folder))


def test_what_cannot_be_pushed_is_refused_before_anything_is_written(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "pushed"
    for repo in ("digits", "user/digits/x", "user/my digits", "../digits", "user/a--b", ""):
        assert "not the name of a repository" in refused(lambda repo=repo: mmgan.push(trained, repo, target))  # type: ignore[misc]
    assert "licence must be a name" in refused(lambda: mmgan.push(trained, "user/digits", target, licence="MIT\nx: 1"))
    assert "is not a run" in refused(lambda: mmgan.push(tmp_path, "user/digits", target))
    assert not target.exists()
    assert "is not empty" in refused(lambda: mmgan.push(trained, "user/digits", trained))
    opened = mmgan.load(trained)
    opened.generator.register_buffer("phase", torch.ones(1, dtype=torch.complex64))
    assert "its phase is complex" in refused(lambda: mmgan.push(opened, "user/digits", target))


# A Hub


class Hub(ThreadingHTTPServer):
    """A server that speaks the calls of huggingface_hub that are needed, and keeps one repository, `user/digits`.

    Of the user `nobody` it knows nothing (401), and what is `other`'s may not be written (403).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.history: list[dict[str, bytes]] = [{}]
        self.private: bool | None = None
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def files(self) -> dict[str, bytes]:
        return self.history[-1]

    def number(self, path: str) -> int:
        """Which commit a path asks for, the last of them if it names none."""
        named = re.search("/(?:revision|tree|resolve)/([^/]+)", path)
        return int(named[1], 16) if named and named[1] != "main" else len(self.history) - 1


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def say(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, body: bytes = b"") -> bool:
        """Whether the request is none that is allowed, which is then said."""
        path = unquote(urlparse(self.path).path)
        self.server.asked.append((self.command, path, self.headers["Authorization"]))
        owner = json.loads(body).get("organization") if path == "/api/repos/create" else path
        if owner and "nobody" in owner:
            self.say({"error": "Invalid username or password."}, 401)
        elif owner and "other" in owner:
            self.say({"error": "You don't have the rights to create a model"}, 403)
        elif path.endswith("/revision/v9"):
            self.say({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
        else:
            return False
        return True

    def do_GET(self) -> None:
        hub, path = self.server, urlparse(self.path).path
        if self.refuse():
            return
        number = hub.number(path)
        files, commit = hub.history[number], f"{number:040x}"
        sums = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        if "/resolve/" in path:
            name = path.rpartition("/")[2]
            self.say(files[name], ETag=f'"{sums[name]}"', X_Repo_Commit=commit)
        elif "/tree/" in path:
            self.say([{"type": "file", "path": n, "size": len(files[n]), "oid": oid} for n, oid in sums.items()])
        else:
            names = [{"rfilename": name} for name in files]
            self.say({"id": "user/digits", "sha": commit, "private": bool(hub.private), "siblings": names})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        hub, path = self.server, urlparse(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuse(body):
            return
        if path == "/api/repos/create":
            there = hub.private is not None
            if not there:
                asked = json.loads(body)
                hub.private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.say({"url": f"{hub.endpoint}/user/digits"}, 409 if there else 200)
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.say({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in path:
            hub.history.append(dict(hub.files))
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del hub.files[value["path"]]
            commit = f"{len(hub.history) - 1:040x}"
            self.say({"commitUrl": f"{hub.endpoint}/user/digits/commit/{commit}", "commitOid": commit})
        else:
            self.say({})


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def python(code: str, environment: dict[str, str], *arguments: str) -> str:
    """What `code` prints, on both streams, in a process of its own: huggingface_hub reads its environment once."""
    line = [sys.executable, "-W", "error", "-c", code, *arguments]
    environment = ENVIRONMENT | environment
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def speaking_to(hub: Hub, folder: Path) -> dict[str, str]:
    """An environment in which huggingface_hub asks this Hub, and keeps what it keeps in a folder."""
    (folder / "temporary").mkdir(exist_ok=True)
    places = {"HF_HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", **places}


ONLINE = """
import os, sys, traceback
from pathlib import Path
import mmgan
from tests.gan.test_hub import TOKEN, same, three_lines

folder, card = sys.argv[1:]
print("at", mmgan.push(folder, "user/digits"))
names = {}
exec(three_lines(Path(card).read_text()), names)
assert names["images"].shape == (16, 1, 8, 8)
assert same(names["run"], mmgan.load(folder))
assert names["run"].scores[0]["scores"] == mmgan.load(folder).scores[0]["scores"]
first = names["run"].folder.name

mmgan.push(mmgan.load(folder, 2, "raw"), "user/digits")
assert same(mmgan.load("user/digits"), mmgan.load(folder, 2, "raw"))
assert mmgan.load("user/digits").scores == []
assert same(mmgan.load("user/digits", revision=first), mmgan.load(folder))

def refused(use):
    try:
        use()
    except mmgan.UserError as error:
        print("refused:", error)
        assert len(str(error).splitlines()) == 1
        assert TOKEN not in traceback.format_exc()

refused(lambda: mmgan.load("user/digits", revision="v9"))
refused(lambda: mmgan.push(folder, "user/digits", private=True))
for owner in ("nobody", "other"):
    refused(lambda: mmgan.load(f"{owner}/digits"))
    refused(lambda: mmgan.push(folder, f"{owner}/digits"))
os.environ["HF_TOKEN"] += "\\x0bx"  # no header may hold this, and the client's error quotes the header
refused(lambda: mmgan.push(folder, "user/digits"))
"""
OFFLINE = """
import sys
import mmgan
from tests.gan.test_hub import same

assert same(mmgan.load("user/digits"), mmgan.load(sys.argv[1], 2, "raw"))
for use in (lambda: mmgan.load("user/faces"), lambda: mmgan.push(sys.argv[1], "user/digits")):
    try:
        use()
    except mmgan.UserError as error:
        print("refused:", error)
"""


def test_what_is_pushed_is_loaded_from_the_hub_and_then_without_it(
    hub: Hub, trained: Path, pushed: Path, tmp_path: Path
) -> None:
    environment = speaking_to(hub, tmp_path)
    said = python(ONLINE, environment, str(trained), str(pushed / "README.md"))
    assert f"at {hub.endpoint}/user/digits" in said
    words = [
        "there is no folder user/digits, and it cannot be downloaded: the Hub has no such repository or revision",
        "user/digits is already public, so nothing was uploaded",
        "there is no folder nobody/digits, and it cannot be downloaded: the Hub has no such repository, or does not",
        "cannot push to nobody/digits: the Hub has no such repository, or does not know you: log in",
        "there is no folder other/digits, and it cannot be downloaded: the Hub does not allow it",
        "cannot push to other/digits: the Hub does not allow it",
        "cannot push to user/digits: the Hub cannot be reached",
    ]
    refusals = [line for line in said.splitlines() if line.startswith("refused: ")]
    for line, start in zip(refusals, words, strict=True):
        assert line.startswith(f"refused: {start}")
    assert sorted(hub.files) == sorted(FILES)
    assert {token for method, _, token in hub.asked if method == "POST"} == {f"Bearer {TOKEN}"}

    before = len(hub.asked)
    offline = python(OFFLINE, environment | {"HF_HUB_OFFLINE": "1"}, str(trained))
    assert "refused: there is no folder user/faces, and it cannot be downloaded: the Hub cannot be reached" in offline
    assert "refused: cannot push to user/digits: the Hub cannot be reached" in offline
    assert len(hub.asked) == before
    assert TOKEN not in said + offline
    written = [path for folder in (tmp_path, trained.parent) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "generator.safetensors" for path in written)
    for content in [*(path.read_bytes() for path in written), *hub.files.values()]:
        assert TOKEN.encode() not in content


def test_the_command_says_where_it_pushed_or_in_one_line_why_not(hub: Hub, trained: Path, tmp_path: Path) -> None:
    environment = ENVIRONMENT | speaking_to(hub, tmp_path)
    done = {}
    for repo in ("user/digits", "other/digits"):
        line = [sys.executable, "scripts/push.py", str(trained), repo, "--private"]
        done[repo] = subprocess.run(
            line, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=300, check=False
        )
    assert (done["user/digits"].returncode, done["user/digits"].stdout) == (0, f"{hub.endpoint}/user/digits\n")
    assert hub.private
    assert sorted(hub.files) == sorted([*FILES, "scores.json"])
    assert done["other/digits"].returncode == 2
    (line_of_error,) = done["other/digits"].stderr.splitlines()
    assert line_of_error.startswith("error: cannot push to other/digits: the Hub does not allow it")
    assert not list((tmp_path / "temporary").rglob("*.safetensors"))
