"""The report of runs that tests make by hand: complete, incomplete, by mixed protocols; and diagnostics."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from datetime import date
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from matplotlib.figure import Figure
from mmgan.gan.arms import read
from mmgan.gan.report import bend, write
from scipy import stats

from mmgan.data import to_network
from mmgan.errors import UserError
from mmgan.experiments.figures import log_scale
from mmgan.gan.diagnose import LAMS, diagnose
from mmgan.gan.networks.resnet import ResNetDiscriminator
from tests.conftest import run

FID = {
    "null": [21.0, 22.0, 23.0],
    "0.5 [0]": [20.0, 21.5, 21.0],
    "0.5 [0, 1, 2]": [19.9, 20.9, 22.0],
    "0.1 [0, 1, 2]": [22.0, 22.5, 24.5],
}
STAMP = {"extractor": "inception", "num_samples": 50, "reference": "train", "versions": {"torch": "2"}}


def make(root: Path, mixup: str, seed: int, fid: float | None, **changes: Any) -> Path:
    """A run's folder, as far as a report reads it; without a score where `fid` is None."""
    folder = root / f"{mixup}-{changes}" / f"seed-{seed}"
    (folder / "samples").mkdir(parents=True)
    alpha, _, layers = mixup.partition(" ")
    drawn = {} if mixup == "null" else {"alpha": float(alpha), "layers": json.loads(layers), "lam": "uniform"}
    mixed = (drawn and {"class_path": "mmgan.mixup.rules.discriminator.DiscriminatorMixup", "init_args": drawn}) or None
    config = {"seed": seed, "n_dis": 5, "steps": 40, "mixup": mixed, "data": {"name": "digits", "subset": None}}
    config |= {"score": {"final": "train-50k"}} | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, Any]] = [{"step": 20, "score/fid": 50.0}]
    path = [-1.0, *[0.1 * seed] * 9, 1.0]
    rows += [{"step": 40, "d/real": 1.0, "d/fake": -1.0, "d/gap": 0.1 * seed, "d/held_out": 1 - 0.1 * seed}]
    rows[-1] |= {"spectral_norm/a": 1.0, "path/0": path, "path/1": path, "path/2": path}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6')
    if fid is not None:
        score(folder, "last", 40, {"is": 8 - fid / 100, "fid": fid})
        score(folder, "best", 20, {"is": 8 - fid / 100, "fid": fid - 0.5})
    return folder


def score(folder: Path, which: str, step: int, scores: dict[str, float], **stamp: Any) -> None:
    file = folder / "scores.json"
    before = json.loads(file.read_text()) if file.exists() else []
    record = {"checkpoint": which, "step": step, "protocol": "train-50k", "stamp": STAMP | stamp, "scores": scores}
    file.write_text(json.dumps([*before, record]))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for mixup, values in FID.items():
        for seed, fid in enumerate(values):
            make(tmp_path / "runs", mixup, seed, fid)
    return tmp_path / "runs"


def page_of(runs: Path, output: Path) -> str:
    """The report as Markdown."""
    settings, protocol = read([runs], None)
    write(settings, protocol, "a command", output)
    return output.with_name(f"{output.name}.md").read_text()


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table after a heading, by their first cell."""
    lines = page[page.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = takewhile(lambda line: line.startswith("|"), lines[first:])
    return {cells[0]: cells[1:] for row in rows if (cells := [cell.strip() for cell in row.strip("|").split("|")])}


def test_the_numbers_are_scipys_and_the_correction_is_for_the_number_of_arms(runs: Path, tmp_path: Path) -> None:
    done = run("report", str(runs), "--output", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    rows = table((tmp_path / "page.md").read_text(), "## Scores")
    tests = {name: stats.ttest_rel(FID[name], FID["null"]) for name in FID if name != "null"}
    names = {"0.5 [0]": "{input} alpha 0.5", "0.5 [0, 1, 2]": "{input, h1, h2} alpha 0.5"}
    names["0.1 [0, 1, 2]"] = "{input, h1, h2} alpha 0.1"
    ordered = sorted(tests, key=lambda name: tests[name].pvalue)
    adjusted = np.maximum.accumulate([min(1, (3 - i) * tests[name].pvalue) for i, name in enumerate(ordered)])
    for name, p in zip(ordered, adjusted, strict=True):
        low, high = tests[name].confidence_interval()
        mean = np.mean(FID[name]) - np.mean(FID["null"])
        n, _, fid, _, best, _, difference, shown, verdict = rows[names[name]]
        assert (n, difference) == ("3", f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        assert fid == f"{np.mean(FID[name]):.3f} +- {np.std(FID[name], ddof=1):.3f}"
        assert best.startswith(f"{np.mean(FID[name]) - 0.5:.3f}")
        assert shown == f"{p:.3f}"
        assert verdict == ("undecided" if p >= 0.05 else "shows" if high < 0 else "the opposite shows")
    assert {rows[name][-1] for name in names.values()} == {"shows", "undecided"}
    assert rows["baseline"][5:] == ["-"] * 4


def test_runs_csv_has_every_run_and_checkpoint(runs: Path, tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    with (tmp_path / "page" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 12
    (row,) = [r for r in rows if (r["alpha"], r["layers"], r["seed"], r["checkpoint"]) == ("0.5", "input", "1", "last")]
    assert float(row["fid"]) == 21.5


def test_an_incomplete_grid_is_drawn_and_said_to_be_one(runs: Path, tmp_path: Path) -> None:
    make(runs, "1.0 [1]", 0, None)
    unscored = make(runs, "1.0 [2]", 0, 20.0)
    page = page_of(runs, tmp_path / "page")
    assert "{h1} alpha 1.0: 0 of 3; {h2} alpha 1.0: 1 of 3" in page
    rows = table(page, "## Scores")
    assert rows["{h1} alpha 1.0"][:7] == ["0", *["-"] * 6]
    assert rows["{h2} alpha 1.0"][6] == "-1.000 (n = 1)"
    shutil.rmtree(unscored / "samples")
    (unscored / "metrics.jsonl").unlink()
    begun = runs / "1.0 [1]-{}" / "seed-0"
    (begun / "metrics.jsonl").write_text('{"step": 20, "loss/real": 1.0}\n')
    assert "{h2} alpha 1.0: 1 of 3. Begun and not finished: 1." in page_of(runs, tmp_path / "page")


def test_a_finished_run_without_scores_by_the_protocol_is_named_and_an_arm_without_runs_has_no_verdict(
    runs: Path, tmp_path: Path
) -> None:
    folder = make(runs, "1.0 [1]", 0, 20.0)
    made = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps([record | {"protocol": "test-10k"} for record in made]))
    page = page_of(runs, tmp_path / "page")
    assert "{h1} alpha 1.0: 0 of 3. Begun and not finished: 0." in page
    assert f"Finished, but not scored by train-50k: {folder} (by test-10k)." in page
    assert "score_gan.py RUN --protocol train-50k" in page
    assert table(page, "## Scores")["{h1} alpha 1.0"][-1] == "no runs"


CONFIG = {"seed": 1, "n_dis": 5, "steps": 40, "mixup": None, "data": {"name": "digits"}, "score": None}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"[" * 5000),
        ("config.yaml", b"17"),
        ("config.yaml", None),
        *(
            ("config.yaml", yaml.safe_dump(CONFIG | change).encode())
            for change in (
                {"seed": None},
                {"steps": "many"},
                {"mixup": 3},
                {"mixup": {"alpha": "x", "layers": [0]}},
                {"mixup": {"alpha": 1.0, "layers": [[0]]}},
                {"score": "paper"},
                {"lr": date(2020, 1, 1)},
                {3: 4, "seed": {}},
            )
        ),
        ("scores.json", b"{"),
        ("scores.json", b"[3]"),
        ("scores.json", b'[{"checkpoint": "last"}]'),
        ("scores.json", json.dumps([{"checkpoint": [], "step": 40, "protocol": "train-50k"}]).encode()),
        *(
            ("scores.json", json.dumps([{"checkpoint": "last", "step": 40, "protocol": "train-50k"} | change]).encode())
            for change in (
                {"scores": {"fid": "low"}, "stamp": {}},
                {"scores": 3, "stamp": {}},
                {"scores": {"fid": 1.0}, "stamp": 3},
            )
        ),
        ("scores.json", None),
    ],
)
def test_a_damaged_run_is_named_and_left_out(runs: Path, name: str, content: bytes | None) -> None:
    folder = runs / "null-{}" / "seed-1"
    (folder / name).unlink()
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{re.escape(str(folder))} is damaged and left out") as caught:
        ((setting,), _) = read([runs], None)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert [point.seed for point in setting.baseline.points] == [0, 2]
    assert setting.baseline.values("last", "fid") == {0: 21.0, 2: 23.0}


@pytest.mark.parametrize("content", [b"\xff", b"[" * 5000, b"3\n[]\n", b'{"step": 40, "path/0": [1], "d/real": "x"}\n'])
def test_damaged_metrics_and_samples_leave_the_scores_as_they_are(runs: Path, tmp_path: Path, content: bytes) -> None:
    before = table(page_of(runs, tmp_path / "page"), "## Scores")
    (runs / "null-{}" / "seed-1" / "metrics.jsonl").write_bytes(content)
    (runs / "null-{}" / "seed-0" / "samples" / "step-000040.png").write_bytes(b"\x89PNG no picture")
    assert table(page_of(runs, tmp_path / "page"), "## Scores") == before


def test_a_report_of_damaged_runs_alone_gets_one_line(tmp_path: Path) -> None:
    (make(tmp_path / "runs", "null", 0, 21.0) / "scores.json").write_text("{")
    done = run("report", str(tmp_path / "runs"), "--output", str(tmp_path / "page"))
    assert done.returncode == 2
    damaged, error = done.stderr.splitlines()
    assert damaged.startswith("warning: ")
    assert error.startswith("error: no whole run of scripts/train_gan.py")


def test_logarithmic_axes_are_labelled_by_plain_numbers() -> None:
    axes = Figure().subplots()
    axes.plot([1, 2], [6.5, 9.2])
    log_scale(axes)
    axes.figure.canvas.draw()
    shown = {label.get_text() for label in axes.get_yticklabels(which="both")} - {""}
    assert {"7", "8", "9"} <= shown
    assert all(float(text) > 0 for text in shown), "numbers, not powers of ten"


def test_runs_of_other_data_are_a_section_of_their_own(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        make(runs, "null", seed, 30.0 + seed, data={"name": "digits", "subset": 9})
        make(runs, "0.5 [0]", seed, 28.0, data={"name": "digits", "subset": 9})
    page = page_of(runs, tmp_path / "page")
    assert table(page, "## data.subset 9")["{input} alpha 0.5"][6].startswith("-2.500 [")
    assert (tmp_path / "page" / "figure9-2.png").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_samples": 60}, "num_samples 50, not 60"),
        ({"extractor": "classifier"}, "extractor inception, not classifier"),
    ],
)
def test_scores_by_other_protocols_are_refused(runs: Path, change: dict[str, Any], words: str) -> None:
    folder = make(runs, "1.0 [1]", 0, None)
    score(folder, "last", 40, {"is": 7.0, "fid": 20.0}, **change)
    with pytest.raises(UserError, match=f"is scored by another protocol than .*: {words}"):
        read([runs], None)


def test_runs_that_cannot_be_compared_get_one_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run of scripts/train_gan"):
        read([tmp_path / "nothing"], None)
    with pytest.raises(UserError, match="no baseline"):
        read([folder for folder in runs.iterdir() if not folder.name.startswith("null")], None)
    twin = runs / "null-{}" / "again"
    shutil.copytree(runs / "null-{}" / "seed-0", twin)
    with pytest.raises(UserError, match="same run with the same seed"):
        read([runs], None)
    shutil.rmtree(twin)
    make(runs, "1.0 [1]", 0, None, score={"final": "paper"})
    with pytest.raises(UserError, match="2 protocols"):
        read([runs], None)
    ((setting,), name) = read([runs], "train-50k")[0][:1], read([runs], "train-50k")[1]
    assert name == "train-50k"
    assert setting.baseline.scored == 3


class Links(HTMLParser):
    """Everything a page points to."""

    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.found += [str(value) for key, value in attrs if key in ("src", "href", "srcset", "data", "poster")]


def test_the_page_is_complete_in_itself(runs: Path, tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    links = Links()
    links.found = []
    links.feed(page)
    assert len(links.found) == 3  # figure 9, curves and paths; these runs have no samples
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert "url(" not in page
    assert "{input} alpha 0.5" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_shows_the_page_without_a_request(runs: Path, tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", "--disable-quic", "--virtual-time-budget=5000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={tmp_path / 'net.json'}"]
    shot = tmp_path / "page.png"
    line = ["chromium", *options, f"--screenshot={shot}", "--window-size=1200,3000"]
    url = (tmp_path / "page" / "report.html").as_uri()
    done = subprocess.run([*line, url], capture_output=True, text=True, timeout=120, check=False)
    assert shot.exists(), done.stderr
    log = json.loads((tmp_path / "net.json").read_text())
    asked = {str(event.get("params", {}).get("url", "")) for event in log["events"]}
    own = ("google.com", "googleapis.com", "gvt1.com")  # what the browser itself looks for at a start
    hosts = {urlparse(one).hostname for one in asked if one.startswith(("http:", "https:", "ws:", "wss:"))}
    assert not [host for host in hosts if not str(host).endswith(own)]


# Diagnostics


def test_a_straight_path_has_no_bend() -> None:
    assert bend([-1.0, 0.0, 1.0]) == 0
    assert bend([3.0, 0.0, 0.0, 0.0]) == pytest.approx((0 + 2 + 1 + 0) / 4 / 3)
    assert np.isnan(bend([1.0, 2.0, 1.0]))


def test_diagnostics_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    network = ResNetDiscriminator(width=8).build(16, 1)
    real, fake, held_out = (to_network(torch.randint(256, (6, 1, 16, 16), dtype=torch.uint8)) for _ in range(3))
    network(real)  # one power iteration, in training
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scalars, curves = diagnose(network, real, fake, held_out)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    network.eval()
    with torch.no_grad():
        assert scalars["d/gap"] == pytest.approx(float(network(real).mean() - network(held_out).mean()), abs=1e-6)
        for layer in (0, 1, 2):
            a, b = network(real, stop=layer), network(fake, stop=layer)
            expected = [float(network(lam * a + (1 - lam) * b, start=layer).mean()) for lam in LAMS]
            assert curves[f"path/{layer}"] == pytest.approx(expected, abs=1e-5)
        conv = network.get_submodule("stages.1.conv1")
        largest = np.linalg.svd(conv.weight.flatten(1).numpy(), compute_uv=False)[0]
        assert scalars["spectral_norm/1.conv1"] == pytest.approx(largest, rel=1e-5)
        assert len([name for name in scalars if name.startswith("spectral_norm/")]) == 8


def test_a_network_nobody_can_mix_has_no_paths() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    x = F.pad(torch.zeros(3, 1, 1, 1), (1, 0, 1, 0))
    scalars, curves = diagnose(network, x, x, None)
    assert curves == {}
    assert set(scalars) == {"d/real", "d/fake", "spectral_norm/1"}
