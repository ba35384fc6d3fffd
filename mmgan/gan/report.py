"""Runs compared with the baseline, drawn and written as one page: Figure 9, tables, diagnostics, samples."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from mmgan.experiments.differences import interval, spread, verdict
from mmgan.experiments.figures import log_scale
from mmgan.gan.arms import LAYERS, Setting
from mmgan.gan.diagnose import LAMS

MEASURES = {"is": "Inception Score", "fid": "FID"}


def bend(path: Sequence[float]) -> float:
    """How far d's logits on a path from fake to real are from a straight line: the mean distance, over the rise."""
    line = np.linspace(path[0], path[-1], len(path))
    rise = abs(path[-1] - path[0])
    return float(np.abs(np.array(path) - line).mean() / rise) if rise else float("nan")


STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKS = "osv^D<>"
"""Line styles and marks, so that lines are told apart without colour."""


def _figure9(setting: Setting, path: Path) -> None:
    """The paper's Figure 9: scores over alpha, a line a layer set, the baseline dotted with its band."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    sets = list(dict.fromkeys(arm.layers for arm in setting.arms))
    alphas = sorted({arm.mixup["alpha"] for arm in setting.arms if arm.mixup})
    for axes, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        base = np.array(list(setting.baseline.values("last", measure).values()))
        spread = base.std(ddof=1) if len(base) > 1 else 0.0
        axes.axhline(base.mean(), linestyle=":", color="black", label="baseline")
        axes.axhspan(base.mean() - spread, base.mean() + spread, color="black", alpha=0.08)
        for i, layers in enumerate(sets):
            shift = 1.03 ** (i - (len(sets) - 1) / 2)  # so that marks at one alpha lie beside each other
            points = []
            for arm in setting.arms:
                values = np.array(list(arm.values("last", measure).values()))
                if arm.mixup and arm.layers == layers and len(values):
                    error = values.std(ddof=1) if len(values) > 1 else 0.0
                    points.append((arm.mixup["alpha"] * shift, values.mean(), error, arm.scored == setting.expected))
            points.sort()
            color, mark = f"C{i}", MARKS[i % len(MARKS)]
            axes.plot([p[0] for p in points], [p[1] for p in points], linestyle=STYLES[i % len(STYLES)], color=color)
            for x, y, error, full in points:
                axes.errorbar(x, y, error, fmt=mark, color=color, capsize=3, markerfacecolor=color if full else "white")
            axes.plot([], [], mark, linestyle=STYLES[i % len(STYLES)], color=color, label=f"{{{layers}}}")
        axes.set(xscale="log", xlabel="alpha", ylabel=title)
        axes.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas], minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6)
    figure.savefig(path, dpi=120)


def _curves(setting: Setting, path: Path) -> None:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, arm in enumerate(setting.all):
        curve = arm.curve("score/fid")
        color = "black" if arm is setting.baseline else f"C{i - 1}"
        means = [np.mean(values) for values in curve.values()]
        axes.plot(list(curve), means, linestyle=STYLES[i % len(STYLES)], color=color, label=arm.name)
        lows, highs = ([f(values) for values in curve.values()] for f in (min, max))
        axes.fill_between(list(curve), lows, highs, color=color, alpha=0.1, linewidth=0)
    axes.set(xlabel="generator step", ylabel="FID while training")
    log_scale(axes)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def _paths(setting: Setting, path: Path) -> None:
    """Mean logits over the share of the real image, a panel a layer, a line an arm."""
    layers = [layer for layer in LAYERS if any(arm.last(f"path/{layer}") for arm in setting.all)]
    figure = Figure(figsize=(4 * len(layers), 4.2), layout="constrained")
    panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for axes, layer in zip(panels, layers, strict=True):
        for i, arm in enumerate(setting.all):
            runs = list(arm.last(f"path/{layer}").values())
            if runs:
                color = "black" if arm is setting.baseline else f"C{i - 1}"
                style = STYLES[i % len(STYLES)]
                axes.plot(LAMS, np.mean(runs, axis=0), linestyle=style, color=color, label=arm.name)
        axes.set(xlabel="lam, share of the real image", title=f"mixed at {LAYERS[layer]}")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="mean logit")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)


def _samples(setting: Setting, path: Path) -> bool:
    """Draw the last sample grid of every arm's first run; whether there is one."""
    grids = [(arm.name, *found) for arm in setting.all if (found := _last_grid(arm.points[0].folder))]
    if not grids:
        return False
    columns = min(4, len(grids))
    rows = -(-len(grids) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.5 * rows), layout="constrained")
    figure.subplots(rows, columns, squeeze=False)
    for axes in figure.axes[len(grids) :]:
        axes.remove()
    for axes, (name, step, image) in zip(figure.axes, grids, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])  # axis("off") would leave no room for the title
        axes.set_title(f"{name}\n{step}", fontsize=8)
    figure.savefig(path, dpi=120)
    return True


def _last_grid(run: Path) -> tuple[str, Any] | None:
    """The step, in words, and the picture of a run's last sample grid that can be read."""
    for file in sorted((run / "samples").glob("step-*.png"), reverse=True):
        try:
            if file.is_file():
                return file.stem, imread(file)
        except (OSError, SyntaxError, ValueError):  # as Pillow calls a damaged file
            continue
    return None


class Block(NamedTuple):
    """A part of the page: a heading (level 1 or 2), a text, a table or a picture."""

    text: str = ""
    level: int = 0
    table: list[list[str]] | None = None
    picture: str = ""
    """File in the report's folder; `text` says what it shows."""


def write(settings: Sequence[Setting], protocol: str, command: str, output: Path) -> None:
    """Write pictures, runs.csv and report.html, which is complete in itself, to `output`, and `output`.md beside it."""
    output.mkdir(parents=True, exist_ok=True)
    blocks = [Block("Discriminator mixup", 1), Block(f"Made by `{command}`.")]
    stamps = [p.stamp for s in settings for arm in s.all for p in arm.points if p.stamp]
    if stamps:
        plain = {key: value for key, value in stamps[0].items() if not isinstance(value, dict | list)}
        facts = ", ".join(f"{key} {str(value)[:40]}" for key, value in plain.items())
        blocks.append(Block(f"Protocol {protocol}: {facts}."))
    for number, setting in enumerate(settings):
        blocks += _section(setting, protocol, output, f"-{number + 1}" if number else "")
    with (output / "runs.csv").open("w", newline="") as file:
        rows = [row for setting in settings for row in _runs(setting)]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    output.with_name(f"{output.name}.md").write_text(_markdown(blocks, output.name))
    (output / "report.html").write_text(_html(blocks, output))


def _section(setting: Setting, protocol: str, output: Path, suffix: str) -> list[Block]:
    """The blocks of a setting; draws its pictures, whose names end with `suffix`."""
    blocks = [Block(setting.name or "Scores", 2)]
    fewer = [f"{arm.name}: {n} of {setting.expected}" for arm in setting.all if (n := arm.scored) < setting.expected]
    unscored = [point for arm in setting.all for point in arm.points if not point.scores]
    ended = [point for point in unscored if point.finished]
    if fewer:
        text = f"Arms with fewer scored runs than the largest, whose marks are hollow: {'; '.join(fewer)}."
        blocks.append(Block(f"{text} Begun and not finished: {len(unscored) - len(ended)}."))
    if ended:
        runs = [f"{p.folder} (by {', '.join(p.others)})" if p.others else str(p.folder) for p in ended]
        blocks.append(
            Block(
                f"Finished, but not scored by {protocol}: {'; '.join(runs)}. "
                f"`python scripts/score_gan.py RUN --protocol {protocol}`, with the run's extractor, scores one."
            )
        )
    names = {name: f"{name}{suffix}.png" for name in ("figure9", "curves", "paths", "samples")}
    if setting.baseline.scored:
        _figure9(setting, output / names["figure9"])
        blocks.append(Block("Inception Score and FID over alpha: means, standard deviations", picture=names["figure9"]))
    blocks.append(Block(table=_scores(setting)))
    several = sum(arm.scored > 1 for arm in setting.arms)
    blocks.append(
        Block(
            "Last and best checkpoint, mean +- standard deviation over n runs. Differences of the last checkpoint to "
            "the baseline's, paired by seed, with 95 % confidence intervals of Student's t; p is that of the FID, "
            f"adjusted for {several} arms (Holm). The verdict is on the paper's claim that mixup lowers FID, at an "
            "adjusted p of 5 %; undecided is not evidence of no difference."
        )
    )
    if any(arm.curve("score/fid") for arm in setting.all):
        _curves(setting, output / names["curves"])
        blocks.append(Block("FID while training: means, and the range over runs", picture=names["curves"]))
    if any(arm.last("path/0") for arm in setting.all):
        _paths(setting, output / names["paths"])
        blocks.append(Block("The discriminator on paths from fake to real, in the end", picture=names["paths"]))
        blocks.append(Block(table=_diagnostics(setting)))
        blocks.append(
            Block(
                "Logits of training images, held-out real images and fakes; the gap, training minus held out, is what "
                "the discriminator knows by heart. Bend: mean distance of a path's logits from a straight line, over "
                "their rise. Smallest and largest spectral norm of a layer, as its weight is used."
            )
        )
    if _samples(setting, output / names["samples"]):
        blocks.append(Block("Samples of each arm's first run, from the same latents", picture=names["samples"]))
    return blocks


def _scores(setting: Setting) -> list[list[str]]:
    scores = [f"{measure}, {which}" for which in ("last", "best") for measure in ("IS", "FID")]
    rows = [["arm", "n", *scores, "IS - baseline", "FID - baseline", "p", "verdict"]]
    pairs = {measure: [None, *setting.compared("last", measure)] for measure in MEASURES}
    for i, arm in enumerate(setting.all):
        spreads = [spread(arm.values(which, measure)) for which in ("last", "best") for measure in MEASURES]
        of_is, of_fid = pairs["is"][i], pairs["fid"][i]
        differences = ["-", "-", "-", "-"]
        if of_is and of_fid:
            (one, _), (fid, p) = of_is, of_fid
            word = verdict(fid) if p < 0.05 or not fid.n else "undecided"
            differences = [interval(one), interval(fid), f"{p:.3f}" if np.isfinite(p) else "-", word]
        rows.append([arm.name, str(arm.scored), *spreads, *differences])
    return rows


def _diagnostics(setting: Setting) -> list[list[str]]:
    layers = [layer for layer in LAYERS if any(arm.last(f"path/{layer}") for arm in setting.all)]
    heads = ["arm", "d real", "d held out", "d fake", "gap", *(f"bend, {LAYERS[k]}" for k in layers), "spectral norms"]
    rows = [heads]
    for arm in setting.all:
        cells = [spread(arm.last(f"d/{name}")) for name in ("real", "held_out", "fake", "gap")]
        cells += [spread({seed: bend(path) for seed, path in arm.last(f"path/{k}").items()}) for k in layers]
        names = {key for point in arm.points for row in point.rows for key in row if key.startswith("spectral_norm/")}
        norms = [value for name in names for value in arm.last(name).values()]
        rows.append([arm.name, *cells, f"{min(norms):.2f} to {max(norms):.2f}" if norms else "-"])
    return rows


def _runs(setting: Setting) -> list[dict[str, Any]]:
    """A row for every run and checkpoint; scores are empty where a run is not finished."""
    return [
        {
            "setting": setting.name,
            "arm": arm.name,
            "layers": arm.layers,
            "alpha": arm.mixup["alpha"] if arm.mixup else "",
            "seed": point.seed,
            "checkpoint": which,
            **{measure: point.scores.get(which, {}).get(measure, "") for measure in MEASURES},
            "folder": str(point.folder),
        }
        for arm in setting.all
        for point in arm.points
        for which in ("last", "best")
    ]


def _markdown(blocks: Sequence[Block], folder: str) -> str:
    parts = []
    for block in blocks:
        if block.table:
            rows = [block.table[0], ["---"] * len(block.table[0]), *block.table[1:]]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        elif block.picture:
            parts.append(f"![{block.text}]({folder}/{block.picture})")
        else:
            parts.append(f"{'#' * block.level} {block.text}".strip())
    return "\n\n".join(parts) + "\n"


def _html(blocks: Sequence[Block], folder: Path) -> str:
    """The page, its pictures inside."""
    files = [block.picture for block in blocks if block.picture]
    pictures = {file: base64.b64encode((folder / file).read_bytes()).decode() for file in files}
    template = (Path(__file__).parent / "report.html").read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(blocks=blocks, pictures=pictures)
