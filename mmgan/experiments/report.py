"""Comparison of runs: a record with all their numbers, and the page made from it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.image import imread

from mmgan.engine import files
from mmgan.engine.changes import HARMLESS
from mmgan.errors import UserError
from mmgan.experiments import figures, page, tables
from mmgan.experiments.claims import decisions, source
from mmgan.experiments.differences import (
    LEVEL,
    POWER,
    Difference,
    detectable,
    difference,
    holm,
    interval,
    needed,
    probability,
)
from mmgan.experiments.experiment import FILE, Experiment, read_plan
from mmgan.experiments.measures import ATTACKS, Measure, describe
from mmgan.experiments.page import Block
from mmgan.experiments.published import published
from mmgan.experiments.results import SEEDS, Result, arms_of, curves_of, read, values_of

Record = dict[str, Any]
BASELINES = ("none", "baseline", "plain", "supervised")
"""Names of arms that are taken as the baseline if none is given."""
LOGARITHMIC = ("FID while training", "Validation NLL over epochs (Fig. 8)")


class Group(NamedTuple):
    """A table of the page: the measures in it, and a note below."""

    heading: str
    takes: Callable[[str], bool]
    rows: str
    """What a row stands for: arm or measure."""
    note: str = ""


def _headed_by(*names: str) -> Callable[[str], bool]:
    return lambda measure: measure.partition("/")[0] in names


GROUPS = (
    Group(
        "What the discriminator does",
        _headed_by("d", "bend", "spectral_norm"),
        "arm",
        "Mean logits d of training images, held-out real images and fakes. The gap shows how far the discriminator has "
        "memorised its training images, but it also shrinks with all logits, as with mixup. Overfitting is the gap "
        "relative to the distance between training images and fakes (r_v of Karras et al. 2020): 0 without a gap, 1 "
        "where held-out images get the logits of fakes. Bend: the mean distance of a path's logits from a straight "
        "line, relative to their rise. Spectral norms are those of the weights as used.",
    ),
    Group("Interpolated targets", _headed_by("interpolated"), "arm"),
    Group("Deformed images (Table 5)", lambda name: name.startswith("deformed/"), "measure"),
    Group("Under attack", _headed_by("clean", "unbounded", *ATTACKS), "measure", "Accuracies: larger is better."),
    Group(
        "Under attack, normalised space",
        _headed_by("normalised"),
        "measure",
        "eps is in units of the channels' standard deviations, and nothing is clamped, as in the authors' code.",
    ),
    Group("Under attack, L2", _headed_by("l2"), "measure"),
)
"""All tables except the first, which has the remaining measures."""


def make(
    folders: Sequence[Path],
    output: Path,
    command: str,
    protocol: str | None = None,
    baseline: str | None = None,
    words: Mapping[str, str] = MappingProxyType({}),
) -> Record:
    """Read runs, or folders of runs, and write a record of their measurements, and its page; returns the record.

    `words` may hold `title` and `about`, which replace the experiment's.

    `output` then holds record.json, the pictures, runs.csv and report.html, and `output`.md is next to it. Raises
    UserError like `results.read`, and if the baseline is not an arm.
    """
    if not output.resolve().name:
        raise UserError(f"--output {output} has no name; choose a folder, next to which the page is written")
    output = output if output.name not in ("", "..") else output.resolve()
    results = read(folders, protocol)
    kept = read_plan(folders[0] / FILE) if len(folders) == 1 and (folders[0] / FILE).exists() else {}
    stated: Experiment | None = kept.get("experiment")
    points = {(arm, seed) for arm, _, seeds in stated.points() for seed in seeds} if stated else set()
    arms = arms_of(results)
    baseline = baseline or (stated.baseline if stated else next((name for name in BASELINES if name in arms), None))
    if baseline is not None and baseline not in arms:
        raise UserError(f"unknown arm {baseline!r} as baseline; --baseline can be {', '.join(arms)}")
    order = [baseline, *([arm for arm, *_ in stated.points()] if stated else []), *arms]
    results.sort(key=lambda one: (order.index(one.arm), one.seed))
    with files.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        record: Record = {
            "kind": "runs",
            "title": stated.title if stated else f"Runs of {', '.join(map(str, folders))}",
            "about": stated.about if stated else "",
            "command": command,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan": {key: kept[key] for key in ("hash", "planned", "begun", "changed") if key in kept},
            **words,
            "missing": sorted(f"{arm}/seed-{seed}" for arm, seed in points - {(one.arm, one.seed) for one in results}),
            "unplanned": sorted(str(one.folder) for one in results if points and (one.arm, one.seed) not in points),
            "claims": [asdict(claim) for claim in stated.claims] if stated else [],
            "drawing": asdict(stated.drawing) if stated and stated.drawing else None,
            "baseline": baseline,
            "started": min(filter(None, (_started(one.folder) for one in results)), default=None),
            "protocols": {name: facts for one in results for name, facts in one.protocols.items()},
            "arms": {
                one.arm: {key: value for key, value in one.config.items() if key not in HARMLESS | SEEDS}
                for one in results
            },
            "runs": [_of_run(one) for one in results],
            "pictures": _pictures(results, output),
        }
        files.write(output / "record.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        write(record, output)
    return record


def _started(folder: Path) -> str | None:
    """The time of a run's first start, UTC."""
    try:
        return str(files.read_json(folder / "environment.json")[0]["time"])
    except (UserError, LookupError, TypeError):
        return None


def _of_run(one: Result) -> Record:
    found = asdict(one) | {"folder": str(one.folder)}
    rounded = {
        group: {panel: [[float(f"{v:.6g}") for v in axis] for axis in xy] for panel, xy in panels.items()}
        for group, panels in one.curves.items()
    }
    left_out = ("config", "protocols", "others")
    return {key: value for key, value in found.items() if key not in left_out} | {"curves": rounded}


def _pictures(results: Sequence[Result], output: Path) -> list[dict[str, str]]:
    """Copy pictures that cannot be made from the numbers: samples, attacked examples, and those of a single run."""
    kept = []
    firsts = {one.arm: one.folder for one in reversed(results)}
    grids = {arm: grid for arm in reversed(firsts) if (grid := _last_grid(firsts[arm]))}
    if grids:
        figures.mosaic({f"{arm}\n{grid.stem}": grid for arm, grid in grids.items()}, output / "samples.jpg")
        kept.append({"file": "samples.jpg", "text": "Samples of each arm's first run, from the same latents"})
    own = ["plots/attack_examples.png"]
    if len(firsts) == 1:
        own += ["samples/grid.png", "samples/interpolation.png", "plots/losses.png", "plots/scores.png"]
    for arm in reversed(firsts):
        for file in (firsts[arm] / name for name in own):
            if file.is_file():
                plain_arm = re.sub(r"[^\w.-]+", "-", arm).strip("-")
                name = file.name if len(firsts) == 1 else f"{file.stem}-{plain_arm}.png"
                shutil.copyfile(file, output / name)
                kept.append({"file": name, "text": f"{file.stem.replace('_', ' ').capitalize()} of {arm}"})
    return kept


def _last_grid(run: Path) -> Path | None:
    """A run's last readable sample grid."""
    for file in sorted((run / "samples").glob("step-*.png"), reverse=True):
        try:
            if file.is_file() and imread(file) is not None:
                return file
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for a damaged file
            continue
    return None


def write(record: Record, output: Path) -> None:
    """Write the pictures, runs.csv and pages of a record; raises UserError for a damaged one."""
    try:
        _write(record, output)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{output / 'record.json'} is damaged ({type(error).__name__}: {error})") from error


def _write(record: Record, output: Path) -> None:
    results = results_of(record)
    names = list(dict.fromkeys(name for one in results for name in one.measures))
    rows: list[list[Any]] = [["arm", "seed", "folder", *names]]
    rows += [[one.arm, one.seed, one.folder, *(one.measures.get(name, "") for name in names)] for one in results]
    with (output / "runs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    page.write(_blocks(record, results, names, output), output.with_name(f"{output.name}.md"), output)


def results_of(record: Record) -> list[Result]:
    """The runs in a record."""
    return [
        Result(**{**one, "folder": Path(one["folder"])}, config=record["arms"][one["arm"]]) for one in record["runs"]
    ]


def _blocks(record: Record, results: Sequence[Result], names: Sequence[str], output: Path) -> list[Block]:
    blocks = [Block(record["title"], 1)]
    blocks += [Block(text) for text in record["about"].split("\n\n") if text]
    blocks += [Block(f"Made by `{record['command']}`, {record['made'][:10]}."), *_plan(record)]
    blocks += [Block(text) for text in _protocols(record)]
    scored = [one for one in results if not one.unscored]
    blocks += [*_unscored(results), *_drawing(record, scored, output)]
    blocks += [Block("Arms", 2), Block(table=tables.of_arms(record["arms"], results))]
    if shared := tables.shared(record["arms"]):
        blocks.append(Block("Settings shared by all arms", items=shared, folded=True))
    if facts := [
        f"{name}: `{key}` {tables.text_of(value)}"
        for name, own in record["protocols"].items()
        for key, value in own.items()
    ]:
        blocks.append(Block("Everything that the measures depend on", items=facts, folded=True))
    blocks += _claims(record, results, output)
    main = [name for name in names if not any(group.takes(name) for group in GROUPS)]
    if main:
        blocks += [Block("Measures", 2), Block(table=tables.by_arm(scored, main))]
        blocks.append(Block("Mean +- standard deviation over the arm's runs."))
    compared = [name for name in main if name != "minutes"]
    if compared and record["baseline"] and len(record["arms"]) > 1:
        blocks += _minus(record, scored, compared, output)
    for group in GROUPS:
        if own := [name for name in names if group.takes(name)]:
            table = tables.by_arm(scored, own) if group.rows == "arm" else tables.by_measure(scored, own)
            blocks += [Block(group.heading, 2), Block(table=table)]
            blocks += [Block(group.note)] if group.note else []
    blocks += _checks(results)
    for number, title in enumerate(dict.fromkeys(key for one in results for key in one.curves), 1):
        drawn = [one.curves[title] for one in results if title in one.curves]
        panels = {panel: curves_of(results, title, panel) for panel in dict.fromkeys(p for own in drawn for p in own)}
        figures.curves(panels, output / f"curves-{number}.png", log=title in LOGARITHMIC)
        text = f"{title}: means over runs, and their range. {_behind(record, title)}".strip()
        blocks += [Block(title, 2), Block(text, picture=f"curves-{number}.png")]
    if record["pictures"]:
        blocks.append(Block("Pictures", 2))
        blocks += [Block(one["text"], picture=one["file"]) for one in record["pictures"]]
    return blocks + _published(names, list(record["arms"]))


def _plan(record: Record) -> list[Block]:
    """Whether the experiment was planned before its first run."""
    plan, started = record["plan"], record["started"]
    if not plan:
        return []
    if plan["planned"] and not started:
        text = f"Recorded as a plan at {plan['begun']}; whether the runs started before or after is not recorded."
    elif plan["planned"] and started >= plan["begun"]:
        text = f"Planned beforehand: arms, seeds and claims were fixed at {plan['begun']}, before the first run started"
        text += f" ({started}), and have not changed since."
    else:
        text = f"Not planned beforehand; its arms, seeds and claims date from {plan.get('changed') or plan['begun']}."
    blocks = [Block(text), Block("The plan's SHA-256", items=[f"`{plan['hash']}`"], folded=True)]
    for key, words in (("missing", "Planned but missing"), ("unplanned", "Present but not planned")):
        if record.get(key):
            blocks += [Block(f"{words}:"), Block(items=[f"`{name}`" for name in record[key]])]
    return blocks


def _in_words(name: str, facts: Mapping[str, Any]) -> str:
    """A protocol as a sentence; the folded list has all of it."""
    if name.startswith("scores"):
        return (
            f"{name.capitalize()}: {facts.get('num_samples')} samples against {facts.get('num_reference', 'all')} "
            f"{facts.get('reference')} images of {facts.get('data', 'the data set')}, "
            f"{facts.get('extractor')} features."
        )
    if name == "evaluation":
        return (
            f"Evaluation: {facts['checkpoint']} checkpoint, {facts['num_images']} {facts['split']} images of "
            f"{facts['data']}; interpolations of {facts['pairs']} pairs."
        )
    if name.startswith("attack"):
        worst = ", the worst of which counts" if facts["restarts"] > 1 else ""
        return (
            f"{name.capitalize()}: {facts['norm']}, {facts['space']} space, {facts['num_images']} {facts['split']} "
            f"images of {facts['data']}, {facts['checkpoint']} checkpoint; PGD of {facts['iterations']} iterations, "
            f"each of {facts['step_size']}; random starts: {facts['restarts']}{worst}."
        )
    return f"{name.capitalize()}: {'; '.join(f'{key} {tables.text_of(value)}' for key, value in facts.items())}."


def _protocols(record: Record) -> list[str]:
    """All protocols of a record as sentences."""
    return [_in_words(name, facts) for name, facts in record["protocols"].items()]


def _behind(record: Record, title: str) -> str:
    """The protocol behind the curves called `title`, as a sentence; empty if there is none."""
    if title == "FID while training":
        scored = [config for config in record["arms"].values() if "score.num_samples" in config]
        if not scored:
            return ""
        return (
            f"{scored[0]['score.num_samples']} samples each time, against all {scored[0]['score.reference']} images, "
            f"{scored[0]['score.extractor.class']} features."
        )
    names = {"NLL of interpolated targets over lam (Fig. 2)": "evaluation"}
    name = names.get(title, title.replace("Accuracy over eps, ", "attack-").replace("Accuracy over eps", "attack"))
    return _in_words(name, record["protocols"][name]) if name in record["protocols"] else ""


def _unscored(results: Iterable[Result]) -> list[Block]:
    """The runs without measures, and why."""
    found = [f"`{one.folder}`: {text}" for one in results for text in (one.unscored, *one.notes) if text]
    return [Block("Runs or measures left out:"), Block(items=found)] if found else []


def _minus(record: Record, results: Sequence[Result], names: Sequence[str], output: Path) -> list[Block]:
    """Every arm minus the baseline, with a picture of measures that claims are about, unless it would repeat theirs."""
    baseline, claims = record["baseline"], record["claims"]
    arms = [arm for arm in arms_of(results) if arm != baseline]
    found = {
        name: [difference(values_of(results, arm, name), values_of(results, baseline, name)) for arm in arms]
        for name in names
    }
    rows = [["arm", *(describe(name).title for name in names)]]
    corrected = {name: holm([one.p for one in own]) for name, own in found.items()}
    for i, arm in enumerate(arms):
        cells = []
        for name in names:
            measure, p = tables.described(results, name), corrected[name][i]
            text = interval(found[name][i], measure.decimals, measure.factor)
            cells.append(text if np.isnan(p) else f"{text}, p {probability(p)}")
        rows.append([f"`{arm}`", *cells])
    spans = [
        (tables.described(results, name), arm, one, "p below 5 %" if p < LEVEL else "p of 5 % or more")
        for name in dict.fromkeys(claim["measure"] for claim in claims)
        if name in found
        for arm, one, p in zip(arms, found[name], corrected[name], strict=True)
    ]
    claimed = {claim["arm"] for claim in claims if claim["other"] == baseline}
    return [
        Block(f"Minus {baseline}", 2),
        Block(table=rows),
        Block(
            "Paired by seed, with 95 % confidence intervals (Student's t); p is corrected for the number of arms "
            "(Holm), not for the claims. An interval that contains 0 is not evidence of no difference."
        ),
        *_forest(
            record,
            spans if claimed < set(arms) else [],
            output / "minus.png",
            f"All arms minus {baseline}",
            "p values",
        ),
    ]


def _claims(record: Record, results: Sequence[Result], output: Path) -> list[Block]:
    made = decisions(record["claims"], results)
    if not made:
        return []
    rows = [["claim", "by", "n", "difference", "p", "verdict", "detectable", "seeds needed", "source"]]
    for one in made:
        least = one.measure.factor * detectable(one.found.deviation, one.found.n, one.level)
        varies = one.found.deviation > 0
        seeds = needed(one.found.mean, one.found.deviation, one.level) or "over 10,000" if varies else "-"
        rows.append(
            [
                one.text,
                one.measure.title,
                str(one.found.n),
                one.interval,
                probability(one.p),
                f"**{one.verdict}**",
                f"{least:.{one.measure.decimals}f}" if varies else "-",
                str(seeds),
                source(one.claim),
            ]
        )
    return [
        Block("Claims", 2),
        Block(table=rows),
        *_forest(
            record,
            [(one.measure, one.text.replace("`", ""), one.found, one.verdict) for one in made],
            output / "claims.png",
            "Claims: the first arm minus the second",
            "verdicts",
        ),
        Block(
            "A difference is the first arm minus the second, paired by seed, with its 95 % confidence interval "
            "(Student's t) over training seeds; what all seeds share, such as the test images, has an error of its "
            "own, which is not in it. p is corrected for all claims about the same measure (Holm); an attack at all "
            "its eps counts as one measure, and so does a measure at all layers. A verdict needs p below "
            f"{LEVEL:.0%}; undecided is not evidence of no difference. Detectable: the smallest true difference that "
            f"this many seeds detect with a probability of {POWER:.0%}. Seeds needed: how many would detect the "
            "observed difference if it were the true one; too few, if chance made it large. Both are at the level that "
            "the correction requires of the smallest p."
        ),
    ]


def _forest(
    record: Record, spans: Iterable[tuple[Measure, str, Difference, str]], file: Path, title: str, corrected: str
) -> list[Block]:
    """A picture of differences of at least two pairs of runs, by measure: label, difference, and what it shows."""
    panels: dict[str, list[figures.Span]] = {}
    for measure, label, found, word in spans:
        if found.n > 1:
            mean, low, high = (measure.factor * value for value in found[:3])
            panels.setdefault(measure.title, []).append(figures.Span(label, mean, low, high, word))
    if not panels:
        return []
    figures.forest(panels, file)
    text = f"{title}, with 95 % confidence intervals; {corrected}, unlike intervals, are corrected for their number."
    return [Block(" ".join([text, *_protocols(record)]), picture=file.name)]


def _drawing(record: Record, results: Sequence[Result], output: Path) -> list[Block]:
    """Measures against an option, for the arms that differ from the baseline only in that option's section.

    Since arms may have different seeds, each is drawn as its difference from the baseline, paired by seed.
    """
    drawing, baseline, arms = record["drawing"], record["baseline"], record["arms"]
    mixed, scored = any("mixup.alpha" in arms[arm] for arm in arms), any("fid" in one.measures for one in results)
    if drawing is None and mixed and scored:
        drawing = {"over": "mixup.alpha", "measures": ["is", "fid"]}
    if drawing is None:
        return []
    over, measures = drawing["over"], drawing["measures"]
    section = over.rpartition(".")[0]
    base = baseline or next((arm for arm, config in arms.items() if config.get(section, 0) is None), None)

    def outside(arm: str) -> dict[str, Any]:
        return {key: value for key, value in arms[arm].items() if key.partition(".")[0] != section}

    shown = {arm: arms[arm] for arm in arms if over in arms[arm] and (base is None or outside(arm) == outside(base))}
    most = max((sum(one.arm == arm for one in results) for arm in arms), default=0)
    options = tables.distinct(shown)
    lines: dict[str, list[str]] = {}
    for arm in shown:
        own = [
            tables.setting(key.removeprefix(f"{section}."), value) for key, value in options[arm].items() if key != over
        ]
        lines.setdefault("; ".join(text.removeprefix("layers ") for text in own) or "mixed", []).append(arm)
    labels = {arm: text if len(text) < 40 else min(same, key=len) for text, same in lines.items() for arm in same}
    marks = []
    for arm, config in shown.items():
        values = {name: values_of(results, arm, name) for name in measures}
        bases = {
            name: values_of(results, base, name) if base else dict.fromkeys(values[name], 0.0) for name in measures
        }
        found = {name: difference(values[name], bases[name]) for name in measures}
        fewest = min(one.n for one in found.values())
        if fewest:
            marks.append(figures.Mark(labels[arm], float(config[over]), found, fewest == most))
    if len(marks) < 2:
        return []
    titles = {name: describe(name).title for name in measures}
    text = f"{' and '.join(titles.values())} over {over}: "
    text += f"differences from {base}, paired by seed, and their" if base else "means, and their"
    text += " 95 % confidence intervals. A hollow mark has fewer runs than the largest arm."
    axes = {name: f"{title} minus that of {base}" if base else title for name, title in titles.items()}
    figures.over_option(marks, axes, over, base, output / "over.png")
    return [Block(" ".join([text, *_protocols(record)]), picture="over.png")]


def _checks(results: Sequence[Result]) -> list[Block]:
    """How many runs passed each check for masked gradients, out of those checked, and what failed ones found."""
    checks = {check["name"]: check["meaning"] for one in results for check in one.checks}
    if not checks:
        return []
    arms = [arm for arm in arms_of(results) if any(one.checks for one in results if one.arm == arm)]
    rows = [["", *(f"`{arm}`" for arm in arms), "what a failure means"]]
    failures = []
    for name, meaning in checks.items():
        cells = []
        for arm in arms:
            own = [(one.seed, check) for one in results if one.arm == arm for check in one.checks]
            measured = [(seed, check) for seed, check in own if check["name"] == name and check["passed"] is not None]
            passed = sum(check["passed"] for _, check in measured)
            cells.append(f"{passed} of {len(measured)}" if measured else "-")
            failures += [
                f"`{arm}`, seed {seed}: {name} ({check['found']})" for seed, check in measured if not check["passed"]
            ]
        rows.append([name, *cells, meaning])
    blocks = [
        Block("Signs of masked gradients", 2),
        Block(table=rows),
        Block("Runs that passed, of those measured."),
    ]
    return blocks + ([Block("What failed", items=failures, folded=True)] if failures else [])


def _published(names: Iterable[str], arms: Sequence[str]) -> list[Block]:
    """The published figures for the measures and arms in this report."""
    known = {*names, *(name.partition("/")[0] for name in names)}
    found = [one for one in published().values() if one.measure in known and set(one.values) & set(arms)]
    shown = [arm for arm in arms if any(arm in one.values for one in found)]
    if not found or len(shown) < 2:
        return []
    rows = [["", "measure", *(f"`{arm}`" for arm in shown)]]
    rows += [
        [f"{one.place}: {one.setting}", describe(one.measure).title, *(one.values.get(arm, "-") for arm in shown)]
        for one in found
    ]
    return [
        Block("Published figures", 2),
        Block(table=rows),
        Block("From other data and larger networks than the proxy's: compare directions, not sizes."),
    ]
