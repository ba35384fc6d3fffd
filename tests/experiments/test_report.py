"""Runs that tests make by hand, read and reported: whole, incomplete, by mixed protocols, damaged; the page itself."""

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
import yaml
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.experiments.claims import decisions
from mmgan.experiments.experiment import Experiment, begin
from mmgan.experiments.figures import log_scale
from mmgan.experiments.pages import remake
from mmgan.experiments.report import make as report
from mmgan.experiments.results import Result, bend, read, values_of
from tests.conftest import ROOT, run

pytestmark = pytest.mark.slow

FID = {
    "null": [21.0, 22.0, 23.0],
    "0.5 [0]": [20.0, 21.5, 21.0],
    "0.5 [0, 1, 2]": [19.9, 20.9, 22.0],
    "0.1 [0, 1, 2]": [22.0, 22.5, 24.5],
}
NAMES = {mixup: re.sub(r"[^\w.]+", "-", mixup.replace("null", "plain")).strip("-") for mixup in FID}
"""Arms by what they mix."""
ARMS: dict[str, Any] = {name: {"mixup.alpha": i} for i, name in enumerate(NAMES.values())}
STAMP = {"extractor": "inception", "num_samples": 50, "reference": "train", "versions": {"torch": "2"}}


def make(root: Path, mixup: str, seed: int, fid: float | None, arm: str | None = None, **changes: Any) -> Path:
    """A run's folder, as far as a report reads it; without a score where `fid` is None."""
    name = re.sub(r"[^\w.]+", "-", mixup.replace("null", "plain")).strip("-")
    folder = root / (arm or name) / f"seed-{seed}"
    (folder / "samples").mkdir(parents=True)
    alpha, _, layers = mixup.partition(" ")
    drawn = {} if mixup == "null" else {"alpha": float(alpha), "layers": json.loads(layers), "lam": "uniform"}
    mixed = (drawn and {"class_path": "mmgan.mixup.rules.discriminator.DiscriminatorMixup", "init_args": drawn}) or None
    config = {"seed": seed, "n_dis": 5, "steps": 40, "mixup": mixed, "data": {"name": "digits", "subset": None}}
    config |= {"score": {"final": "train-50k"}} | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, Any]] = [{"step": 20, "score/fid": 50.0, "steps_per_second": 2.0}]
    path = [-1.0, *[0.1 * seed] * 9, 1.0]
    rows += [{"step": 40, "d/real": 1.0, "d/fake": -1.0, "d/gap": 0.1 * seed, "d/held_out": 1 - 0.1 * seed}]
    rows[-1] |= {"spectral_norm/a": 1.0, "spectral_norm/b": 1.5, "path/0": path, "path/1": path, "path/2": path}
    rows[-1] |= {"steps_per_second": 0.5}
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


def page_of(runs: Path, output: Path, baseline: str | None = "plain") -> str:
    """The report as Markdown."""
    report([runs], output, "a command", None, baseline)
    return output.with_name(f"{output.name}.md").read_text()


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table after a heading, by their first cell."""
    lines = page[page.index(f"## {heading}") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = takewhile(lambda line: line.startswith("|"), lines[first:])
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in cells}


def test_differences_are_scipys_and_corrected_for_the_number_of_arms(runs: Path, tmp_path: Path) -> None:
    done = run("report", str(runs), "--output", str(tmp_path / "page"), "--baseline", "plain")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 runs are measured" in done.stdout
    page = (tmp_path / "page.md").read_text()
    assert f"`python scripts/report.py {runs} --output {tmp_path / 'page'} --baseline plain`" in page
    rows, measures = table(page, "Minus plain"), table(page, "Measures")
    tests = {name: stats.ttest_rel(FID[name], FID["null"]) for name in FID if name != "null"}
    ordered = sorted(tests, key=lambda name: tests[name].pvalue)
    adjusted = np.maximum.accumulate([min(1, (3 - i) * tests[name].pvalue) for i, name in enumerate(ordered)])
    column = rows["arm"].index("FID")
    for name, p in zip(ordered, adjusted, strict=True):
        low, high = tests[name].confidence_interval()
        mean = np.mean(FID[name]) - np.mean(FID["null"])
        assert (
            rows[NAMES[name]][column]
            == f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], p {'<0.001' if p < 0.0005 else f'{p:.3f}'}"
        )
        cells = dict(zip(measures["arm"], measures[NAMES[name]], strict=True))
        assert cells["n"] == "3"
        assert cells["FID"] == f"{np.mean(FID[name]):.3f} +- {np.std(FID[name], ddof=1):.3f}"
        assert cells["FID, best checkpoint"].startswith(f"{np.mean(FID[name]) - 0.5:.3f}")
        assert cells["minutes of training, at the machine's load"].startswith(f"{(20 / 2 + 20 / 0.5) / 60:.1f}")
    assert "plain" not in rows


CLAIMS = [
    {"arm": NAMES["0.5 [0]"], "other": "plain", "measure": "fid", "source": "appendix-g-fid"},
    {"arm": NAMES["0.5 [0, 1, 2]"], "other": "plain", "measure": "fid"},
    {"arm": NAMES["0.1 [0, 1, 2]"], "other": "plain", "measure": "fid", "direction": "above", "source": "a thought"},
    {"arm": NAMES["0.5 [0]"], "other": "plain", "measure": "is", "direction": "above"},
]


def state(folder: Path, planned: bool = True, **changes: Any) -> Experiment:
    """Keep an experiment with those claims in a folder, as a sweep does."""
    values = {"script": "train_gan", "title": "Four arms", "about": "One.\n\nTwo.", "claims": CLAIMS}
    values |= {"arms": ARMS, "baseline": "plain", "planned": planned} | changes
    experiment = cli.config_of(Experiment, values)
    begin(experiment, folder)
    return experiment


def test_claims_are_decided_by_corrected_p_values_and_say_what_as_many_seeds_can_show(
    runs: Path, tmp_path: Path
) -> None:
    experiment = state(runs)
    record = report([runs], tmp_path / "page", "a command", None, None)
    assert record["plan"]["hash"] == experiment.hash()
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Four arms\n\nOne.\n\nTwo.\n")
    lines = page[page.index("## Claims") :].splitlines()[4:8]
    cells = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in lines]
    p = [stats.ttest_rel(FID[name], FID["null"]).pvalue for name in list(FID)[1:]]
    ordered = sorted(range(3), key=lambda i: p[i])
    corrected = dict(zip(ordered, np.maximum.accumulate([(3 - i) * p[k] for i, k in enumerate(ordered)]), strict=True))
    for i in range(3):
        found = cells[i]
        assert found[4] == f"{corrected[i]:.3f}"
        assert found[5] == ("undecided" if corrected[i] >= 0.05 else "shows")
        difference = np.array(list(FID.values())[i + 1]) - FID["null"]
        effect = float(found[6]) / difference.std(ddof=1)
        drawn = np.random.default_rng(0).normal(effect, 1, (20_000, 3))
        assert (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05 / 3).mean() == pytest.approx(0.8, abs=0.02)
    assert cells[2][0].replace("`", "") == f"{NAMES['0.1 [0, 1, 2]']} above plain"
    assert cells[0][8] == "appendix G, CIFAR-10, at least three runs"
    assert cells[2][8] == "a thought"
    assert cells[3][4] == f"{stats.ttest_rel(FID['0.5 [0]'], FID['null']).pvalue:.3f}", "one claim needs no correction"


def test_claims_about_an_attack_are_corrected_for_all_its_eps(tmp_path: Path) -> None:
    accuracies = {
        "fgsm/0.05": ([0.2, 0.3, 0.1], [0.5, 0.5, 0.5]),
        "fgsm/0.1": ([0.1, 0.2, 0.1], [0.2, 0.2, 0.3]),
        "clean": ([0.9, 0.8, 0.9], [0.9, 0.9, 0.9]),
    }
    results = [
        Result(tmp_path, {}, arm, seed, {name: values[i][seed] for name, values in accuracies.items()})
        for i, arm in enumerate(("none", "input"))
        for seed in range(3)
    ]
    claims = [{"arm": "input", "other": "none", "measure": name, "direction": "above"} for name in accuracies]
    p = [stats.ttest_rel(*values).pvalue for values in accuracies.values()]
    assert p[0] < p[1]
    found = [one.p for one in decisions(claims, results)]
    assert found == pytest.approx([2 * p[0], max(2 * p[0], p[1]), p[2]], rel=1e-9)


def test_a_claim_names_its_published_numbers_and_they_stand_in_a_table(tmp_path: Path) -> None:
    for seed in (0, 1):
        make(tmp_path / "runs", "null", seed, 20.0 + seed, arm="none")
        make(tmp_path / "runs", "0.5 [0]", seed, 19.0, arm="input")
    state(
        tmp_path / "runs",
        arms={"none": {}, "input": {"lr": 1}},
        baseline="none",
        claims=[{"arm": "input", "other": "none", "measure": "fid", "source": "appendix-g-fid"}],
    )
    page = page_of(tmp_path / "runs", tmp_path / "page", None)
    assert "appendix G, CIFAR-10, at least three runs: 21.9 +- 0.62 to 21.4 +- 0.56 |" in page
    assert "| appendix G: CIFAR-10, at least three runs | FID | 21.9 +- 0.62 | 21.4 +- 0.56 |" in page


@pytest.mark.parametrize(("started", "planned"), [("2199-01-01", True), ("1999-01-01", False)])
def test_a_plan_counts_where_it_was_kept_before_the_first_run(
    runs: Path, tmp_path: Path, started: str, planned: bool
) -> None:
    state(runs)
    (runs / "plain" / "seed-0" / "environment.json").write_text(json.dumps([{"time": f"{started}T00:00:00+00:00"}]))
    page = page_of(runs, tmp_path / "page", None)
    assert ("Planned beforehand: arms, seeds and claims were fixed at" in page) == planned
    assert ("Not planned beforehand" in page) == (not planned)


def test_what_was_planned_and_is_not_there_is_named_and_what_was_not_planned_too(runs: Path, tmp_path: Path) -> None:
    state(runs, seeds=[0, 1, 3])
    page = page_of(runs, tmp_path / "page", None)
    planned = page[page.index("Planned but missing:") : page.index("Present but not planned:")]
    assert re.findall("`(.*)`", planned) == sorted(f"{name}/seed-3" for name in NAMES.values())
    assert f"- `{runs / 'plain' / 'seed-2'}`" in page[page.index("Present but not planned:") :]


def test_a_claim_without_runs_counts_neither_for_the_correction_nor_for_the_power(runs: Path, tmp_path: Path) -> None:
    claim = {"arm": NAMES["0.5 [0]"], "other": "plain", "measure": "fid"}
    arms = {**ARMS, "gone": {"lr": 1}}
    state(runs, arms=arms, claims=[claim])
    shutil.copytree(runs, tmp_path / "other")
    (tmp_path / "other" / "experiment.json").unlink()
    state(tmp_path / "other", arms=arms, claims=[claim, {**claim, "other": "gone"}])
    cells = [
        page[page.index("## Claims") :].splitlines()[4].split("|")[1:8]
        for page in (page_of(folder, tmp_path / "page", None) for folder in (runs, tmp_path / "other"))
    ]
    assert cells[0] == cells[1]


def test_a_measure_that_is_no_number_is_named_and_the_others_are_counted(runs: Path, tmp_path: Path) -> None:
    folder = runs / "plain" / "seed-1"
    (folder / "scores.json").unlink()
    score(folder, "last", 40, {"is": 7.0, "fid": float("nan")})
    page = page_of(runs, tmp_path / "page")
    assert f"- `{folder}`: fid is nan and was left out" in page
    cells = dict(zip(table(page, "Measures")["arm"], table(page, "Measures")["plain"], strict=True))
    assert cells["FID"] == f"22.000 +- {np.std([21, 23], ddof=1):.3f} (n = 2)"


def test_many_seeds_in_a_row_are_named_by_the_first_and_the_last(tmp_path: Path) -> None:
    for seed in (100, 101, 102, 103, 7, 9, 10):
        make(tmp_path / "runs", "null", seed, 21.0)
    assert table(page_of(tmp_path / "runs", tmp_path / "page"), "Arms")["plain"][:2] == ["7", "7, 9, 10, 100 to 103"]


def test_small_numbers_keep_three_digits(tmp_path: Path) -> None:
    for seed, value in enumerate((2e-5, 3e-5)):
        folder = tmp_path / "runs" / "mine" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"seed: {seed}")
        (folder / "result.json").write_text(json.dumps({"measures": {"loss": value}}))
    assert table(page_of(tmp_path / "runs", tmp_path / "page", None), "Measures")["mine"][1].startswith("0.0000250 +-")


@pytest.mark.parametrize("damage", ["[]", "null", "{}", '{"hash": 3}', "DAMAGED ARMS"])
def test_a_damaged_plan_gets_one_line(runs: Path, tmp_path: Path, damage: str) -> None:
    state(runs)
    kept = json.loads((runs / "experiment.json").read_text())
    kept["experiment"]["arms"] = 3
    (runs / "experiment.json").write_text(json.dumps(kept) if damage == "DAMAGED ARMS" else damage)
    with pytest.raises(UserError, match=r"experiment\.json is damaged"):
        page_of(runs, tmp_path / "page", None)


@pytest.mark.parametrize("change", [[], {}, {"runs": [3]}, {"pictures": [{"file": "../../a.png", "text": ""}]}])
def test_a_damaged_record_gets_one_line_and_shows_no_other_file(runs: Path, tmp_path: Path, change: Any) -> None:
    page_of(runs, tmp_path / "results" / "page")
    (tmp_path / "a.png").write_bytes(b"secret")
    file = tmp_path / "results" / "page" / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change if change else change))
    (tmp_path / "results" / "page" / "report.html").unlink()
    with pytest.raises(UserError, match=r"damaged|only show pictures in its folder"):
        remake(tmp_path / "results")
    assert not (tmp_path / "results" / "page" / "report.html").exists()


def test_the_record_is_enough_to_make_the_page_again(runs: Path, tmp_path: Path) -> None:
    state(runs)
    Image.new("L", (40, 40)).save(runs / "plain" / "seed-0" / "samples" / "step-000040.png")
    before = page_of(runs, tmp_path / "results" / "page", None)
    folder = tmp_path / "results" / "page"
    drawn = sorted(path.name for path in folder.iterdir())
    assert "samples.jpg" in drawn
    shutil.rmtree(runs)
    for path in folder.iterdir():
        if path.name not in ("record.json", "samples.jpg"):
            path.unlink()
    folder.with_name("page.md").unlink()
    done = run("pages", str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    assert folder.with_name("page.md").read_text() == before
    assert sorted(path.name for path in folder.iterdir()) == drawn
    with pytest.raises(UserError, match="holds no records"):
        remake(folder)


def test_the_claims_of_all_experiments_stand_in_one_table(runs: Path, tmp_path: Path) -> None:
    state(runs)
    page = page_of(runs, tmp_path / "results" / "page", None)
    assert "](page/claims.png)" in page
    (tmp_path / "found.md").write_text("Before.\n<!-- claims: made by scripts/pages.py -->\n<!-- /claims -->\nAfter.\n")
    remake(tmp_path / "results")
    found = (tmp_path / "found.md").read_text()
    assert (found.startswith("Before.\n"), found.endswith("\nAfter.\n")) == (True, True)

    def rows(text: str) -> list[list[str]]:
        lines = takewhile(lambda line: line.startswith("|"), text[text.index("| ---") :].splitlines()[1:])
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]

    claims = rows(page[page.index("## Claims") :])
    assert len(claims) == len(CLAIMS)
    assert [row[1:] for row in rows(found)] == [[*row[:4], row[5], row[8]] for row in claims]
    assert [row[0] for row in rows(found)] == ["[Four arms](results/page.md), planned", "", "", ""]


def test_every_page_of_results_is_what_its_record_makes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    made = remake(tmp_path / "docs" / "results")
    assert {file.name for file in (ROOT / "docs" / "results").glob("*.md")} == {
        file.name for file in made if file.parent.name == "results"
    }
    for file in made:
        committed = ROOT / file.relative_to(tmp_path)
        assert file.read_text() == committed.read_text(), f"{committed} is older than its record: scripts/pages.py"
        if (report_page := file.with_suffix("") / "report.html").exists():
            assert report_page.stat().st_size < 1_500_000
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", file.read_text()):
            assert (committed.parent / picture).exists()


def test_runs_csv_has_every_run_and_its_numbers(runs: Path, tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    with (tmp_path / "page" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    (row,) = [row for row in rows if (row["arm"], row["seed"]) == (NAMES["0.5 [0]"], "1")]
    assert (float(row["fid"]), float(row["best/fid"])) == (21.5, 21.0)


def test_an_incomplete_grid_is_drawn_and_said_to_be_one(runs: Path, tmp_path: Path) -> None:
    unscored = make(runs, "1.0 [1]", 0, None)
    make(runs, "1.0 [2]", 0, 20.0)
    (unscored / "metrics.jsonl").write_text('{"step": 20, "loss/real": 1.0}\n')
    page = page_of(runs, tmp_path / "page")
    assert f"- `{unscored}`: not finished" in page
    arms = table(page, "Arms")
    assert (arms["1.0-1"][:2], arms["1.0-2"][:2]) == (["0 of 1", "-"], ["1", "0"])
    assert table(page, "Minus plain")["1.0-2"][1] == "-1.000 (n = 1)"
    assert "1.0-1" not in table(page, "Measures")


def test_a_finished_run_without_scores_by_the_protocol_is_named(runs: Path, tmp_path: Path) -> None:
    folder = make(runs, "1.0 [1]", 0, 20.0)
    made = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps([record | {"protocol": "test-10k"} for record in made]))
    assert f"- `{folder}`: not scored by train-50k, but by test-10k" in page_of(runs, tmp_path / "page")
    (folder / "scores.json").unlink()
    assert f"- `{folder}`: not scored, evaluated or attacked" in page_of(runs, tmp_path / "page")


CONFIG = {"seed": 1, "n_dis": 5, "steps": 40, "mixup": None, "data": {"name": "digits"}, "score": None}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"[" * 5000),
        ("config.yaml", b"17"),
        ("config.yaml", None),
        ("config.yaml", yaml.safe_dump(CONFIG | {"seed": None}).encode()),
        ("config.yaml", yaml.safe_dump(CONFIG | {3: 4}).encode()),
        ("config.yaml", yaml.safe_dump(CONFIG | {"seed": date(2020, 1, 1)}).encode()),
        ("scores.json", b"{"),
        ("scores.json", b"[3]"),
        ("scores.json", b'[{"checkpoint": "last"}]'),
        *(
            ("scores.json", json.dumps([{"checkpoint": "last", "step": 40, "protocol": "train-50k"} | change]).encode())
            for change in (
                {"scores": {"fid": "low"}, "stamp": {}},
                {"scores": 3, "stamp": {}},
                {"scores": {"fid": 1.0}, "stamp": 3},
            )
        ),
        ("scores.json", None),
        ("evaluation.json", b"{}"),
        ("evaluation.json", b'{"finished": true, "interpolated_nll": {"0": [1.0, "x"]}}'),
        ("evaluation.json", b'{"finished": true, "interpolated_nll": [1.0]}'),
        ("attack.json", b'{"finished": true, "clean": {}}'),
        ("attack.json", b"[" * 5000),
        ("result.json", b"3"),
        ("result.json", b'{"measures": {"a": "x"}}'),
    ],
)
def test_a_damaged_run_is_named_and_left_out(runs: Path, name: str, content: bytes | None) -> None:
    folder = runs / "plain" / "seed-1"
    (folder / name).unlink(missing_ok=True)
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{re.escape(str(folder))} is damaged and left out") as caught:
        found = read([runs], None)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert values_of(found, "plain", "fid") == {0: 21.0, 2: 23.0}


@pytest.mark.parametrize("content", [b"\xff", b"[" * 5000, b"3\n[]\n", b'{"step": 40, "path/0": [1], "d/real": "x"}\n'])
def test_damaged_metrics_and_samples_leave_the_scores_as_they_are(runs: Path, tmp_path: Path, content: bytes) -> None:
    before = table(page_of(runs, tmp_path / "page"), "Minus plain")
    (runs / "plain" / "seed-1" / "metrics.jsonl").write_bytes(content)
    (runs / "plain" / "seed-0" / "samples" / "step-000040.png").write_bytes(b"\x89PNG no picture")
    assert table(page_of(runs, tmp_path / "page"), "Minus plain") == before


def test_a_report_of_damaged_runs_alone_gets_one_line(tmp_path: Path) -> None:
    (make(tmp_path / "runs", "null", 0, 21.0) / "scores.json").write_text("{")
    done = run("report", str(tmp_path / "runs"), "--output", str(tmp_path / "page"))
    assert done.returncode == 2
    damaged, error = done.stderr.splitlines()
    assert damaged.startswith("warning: ")
    assert error.startswith("error: all runs in ")


def test_logarithmic_axes_are_labelled_by_plain_numbers() -> None:
    large, small = Figure().subplots(1, 2)
    large.plot([1, 2], [6.5, 9.2])
    small.plot([1, 2], [2e-6, 3e-4])
    shown = []
    for axes in (large, small):
        log_scale(axes)
        axes.figure.canvas.draw()
        shown.append({label.get_text() for label in axes.get_yticklabels(which="both")} - {""})
    assert {"7", "8", "9"} <= shown[0]
    assert {"0.00001", "0.0001"} <= shown[1]
    assert all(re.fullmatch(r"[0-9.]+", text) for text in shown[0] | shown[1]), "numbers, not powers of ten"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_samples": 60}, "num_samples 60, not 50"),
        ({"extractor": "classifier"}, "extractor classifier, not inception"),
    ],
)
def test_scores_by_other_protocols_are_refused(runs: Path, change: dict[str, Any], words: str) -> None:
    folder = make(runs, "1.0 [1]", 0, None)
    score(folder, "last", 40, {"is": 7.0, "fid": 20.0}, **change)
    with pytest.raises(UserError, match=f"was measured by a different protocol from .*: {words}"):
        read([runs], None)


def test_conditional_runs_compare_with_others(runs: Path) -> None:
    folder = make(runs, "1.0 [1]", 0, None)
    score(folder, "last", 40, {"is": 7.0, "fid": 20.0}, labels="uniform")
    found = read([runs], None)
    assert {one.measures["fid"] for one in found if one.folder == folder} == {20.0}
    assert len(found) > 1


def test_runs_that_cannot_be_compared_get_one_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs in"):
        read([tmp_path / "nothing"], None)
    with pytest.raises(UserError, match="unknown arm 'nothing' as baseline; --baseline can be 0"):
        page_of(runs, tmp_path / "page", "nothing")
    twin = runs / "plain" / "again"
    shutil.copytree(runs / "plain" / "seed-0", twin)
    with pytest.raises(UserError, match="same run with the same seed"):
        read([runs], None)
    shutil.rmtree(twin)
    other = make(runs, "null", 7, 20.0, lr=3.0)
    with pytest.raises(UserError, match=r"plain/seed-\d is not a repetition of .*plain/seed-\d: lr"):
        read([runs], None)
    shutil.rmtree(other)
    make(runs, "1.0 [1]", 0, None, score={"final": "paper"})
    with pytest.raises(UserError, match="2 protocols"):
        read([runs], None)
    assert len(values_of(read([runs], "train-50k"), "plain", "fid")) == 3


def test_scores_of_runs_that_name_no_protocol_count_where_all_are_by_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        make(tmp_path, "null", seed, 20.0 + seed, score=None)
    assert values_of(read([tmp_path], None), "plain", "fid") == {0: 20.0, 1: 21.0}
    file = tmp_path / "plain" / "seed-0" / "scores.json"
    more = json.loads(file.read_text())
    file.write_text(json.dumps([*more, more[0] | {"protocol": "paper"}]))
    with pytest.raises(UserError, match=r"2 protocols \(paper, train-50k\); choose one with --protocol"):
        read([tmp_path], None)


def test_runs_outside_of_arms_are_called_by_their_folders(tmp_path: Path) -> None:
    for name, mixup in (("a", "null"), ("b", "0.5 [0]")):
        made = make(tmp_path / "old", mixup, 0, 20.0)
        shutil.move(made, tmp_path / "runs" / name)
    assert [one.arm for one in read([tmp_path / "runs"], None)] == ["a", "b"]


def test_a_result_of_one_s_own_brings_measures_curves_and_what_they_depend_on(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / "mine" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"seed: {seed}\n")
        curves = {"Loss": {"over steps": [[1, 2], [3.0, 2.0 + seed]]}}
        values = {"measures": {"loss": 2.0 + seed}, "curves": curves, "protocol": {"data": "mine"}}
        (folder / "result.json").write_text(json.dumps(values))
    page = page_of(tmp_path / "runs", tmp_path / "page", None)
    assert table(page, "Measures")["mine"] == ["2", "2.500 +- 0.707"]
    assert "![Loss: means over runs, and their range.](page/curves-1.png)" in page
    assert "- result: `data` mine" in page


class Links(HTMLParser):
    """Everything a page points to."""

    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("link", "iframe")
        values = {key: str(value) for key, value in attrs}
        assert tag != "script" or "src" not in values
        self.found += [values[key] for key in ("src", "href", "srcset", "data", "poster") if key in values]


def test_the_page_is_complete_in_itself(runs: Path, tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    links = Links()
    links.found = []
    links.feed(page)
    pictures = [link for link in links.found if not link.startswith("#part-")]
    assert len(pictures) == 3  # measures over alpha, curves and paths; these runs have no samples
    assert all(link.startswith("data:image/png;base64,") for link in pictures)
    assert all(f'id="{link.removeprefix("#")}"' in page for link in links.found if link.startswith("#"))
    assert "url(" not in page


MEASURE = """<script>
document.querySelectorAll("th")[1].click();
const first = document.querySelector("tbody").rows[0].cells[0].textContent;
const wide = [...document.querySelectorAll("td, th, img, p, code")].filter(
  one => one.offsetParent && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
document.title = JSON.stringify([document.documentElement.scrollWidth, innerWidth, wide.length, first]);
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_shows_all_of_the_page_without_a_request_and_sorts_its_tables(tmp_path: Path, width: int) -> None:
    shutil.copytree(ROOT / "docs" / "results" / "classifiers", tmp_path / "results" / "classifiers")
    remake(tmp_path / "results")
    page = (tmp_path / "results" / "classifiers" / "report.html").read_text()
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{MEASURE}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", "--disable-quic", "--virtual-time-budget=5000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={tmp_path / 'net.json'}"]
    line = ["chromium", *options, "--dump-dom", f"--window-size={width},3000", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    title = re.search(r"<title>(\[.*?\])</title>", done.stdout)
    assert title, done.stderr
    scroll, inner, cut, first = json.loads(title[1])
    assert scroll <= inner
    assert cut == 0, "nothing is beyond the right edge"
    assert first
    log = json.loads((tmp_path / "net.json").read_text())
    asked = {str(event.get("params", {}).get("url", "")) for event in log["events"]}
    own = ("google.com", "googleapis.com", "gvt1.com")  # what the browser itself looks for at a start
    hosts = {urlparse(one).hostname for one in asked if one.startswith(("http:", "https:", "ws:", "wss:"))}
    assert not [host for host in hosts if not str(host).endswith(own)]


def test_a_straight_path_has_no_bend() -> None:
    assert bend([-1.0, 0.0, 1.0]) == 0
    assert bend([3.0, 0.0, 0.0, 0.0]) == pytest.approx((0 + 2 + 1 + 0) / 4 / 3)


def test_overfitting_does_not_depend_on_the_scale_of_the_logits(runs: Path) -> None:
    assert values_of(read([runs], None), "plain", "d/overfit") == pytest.approx({0: 0, 1: 0.1 / 2, 2: 0.2 / 2})
    smaller = {"step": 40, "d/real": 0.5, "d/fake": -0.5, "d/gap": 0.05, "d/held_out": 0.45}
    (runs / "plain" / "seed-1" / "metrics.jsonl").write_text(json.dumps(smaller) + "\n")
    no_better = smaller | {"d/fake": 0.5}
    (runs / "plain" / "seed-2" / "metrics.jsonl").write_text(json.dumps(no_better) + "\n")
    assert values_of(read([runs], None), "plain", "d/overfit") == pytest.approx({0: 0, 1: 0.05})
