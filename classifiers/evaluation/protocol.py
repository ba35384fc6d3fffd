"""The protocol by which a trained classifier is evaluated; scripts/evaluate_cls.py says which files it writes."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from classifiers.config import ClassifierConfig
from classifiers.evaluation.deform import TABLE_5, deform, matrices
from classifiers.evaluation.measures import LAMS, ece, error, interpolated_nll, knn_error, nll, predict, reliability
from classifiers.evaluation.plots import plot_interpolation, plot_reliability
from classifiers.load import choose, finished, load_classifier, trained_rows
from mmgan.data import DataChange, Images, fingerprint, load
from mmgan.engine import files
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import stream
from mmgan.errors import UserError

NEIGHBOURS = (1, 5, 20)
PAIRS = 5000
LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn")


def evaluate(
    run: Path,
    checkpoint: Literal["auto", "best", "last"] | int = "auto",
    split: Literal["test", "train"] = "test",
    deformations: bool = True,
    seed: int = 0,
    batch_size: int = 512,
    output: Path | None = None,
    trust: bool = False,
    data: DataChange = DataChange(),  # noqa: B008
) -> None:
    """Evaluate a trained classifier: error, likelihood, calibration, neighbours, interpolations, deformed images.

    With split test, error and likelihood are also measured on the images that the run was trained on, without
    augmentation.

    Args:
        run: folder of the run
        checkpoint: best (by validation error), last, the step of a kept checkpoint, or auto: best if it exists, else
            last
        split: part of the data set to evaluate on; train is the whole training part, including images that the run was
            not trained on, and leaves out kNN, whose neighbours are among them
        deformations: also evaluate on images rotated, sheared and zoomed as in Table 5; this takes longest
        seed: seed of the interpolated pairs, the deformations, and the random draws of the network
        batch_size: images per batch; changes only rounding, and the random draws of the network
        output: folder to write to; default: the run folder
        trust: allow the run to name classes from outside mmgan, which are then imported
        data: the run's images, if they have moved since: --data.root FOLDER
    """
    if batch_size < 1:
        raise UserError("batch_size must be positive")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    which = choose(run, checkpoint)
    network, config, saved = load_classifier(run, which, device, trust)
    config = replace(config, data=data.of(config.data))
    train = _trained_on(run, config, saved)
    images, labels = load(replace(config.data, split=split)).labelled()
    folder = output or run
    with files.writing(folder):
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    classes, last, pairs = saved.state["classes"], network.depth - 1, slice(0, PAIRS)

    found: dict[str, Any] = {"checkpoint": which, "step": saved.step, "data": config.data.name, "split": split}
    found |= {"images": fingerprint(images), "num_images": len(images), "num_train": len(train.images), "seed": seed}
    found |= {"pairs": len(images[pairs]), "run_seed": config.seed, "finished": finished(run, config)}
    found["libraries"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    torch.manual_seed(stream(seed, "network", 0).initial_seed())  # for a network that draws at random
    tasks = 3 + network.depth + (len(TABLE_5) if deformations else 0)
    with tqdm(total=tasks, desc=str(run), unit="part", disable=None, leave=False) as bar:
        logits = predict(network, images, device, batch_size)
        found |= {"error": error(logits, labels), "nll": nll(logits, labels), "ece": ece(logits, labels)}
        parts = reliability(logits, labels)
        found["reliability"] = parts
        bar.update()
        if split == "test":
            features = predict(network, images, device, batch_size, stop=last)
            known = predict(network, train.images, device, batch_size, stop=last)
            fitted = predict(network, known, device, batch_size, start=last)
            found |= {"train_error": error(fitted, train.labels), "train_nll": nll(fitted, train.labels)}
        bar.update()
        for k in NEIGHBOURS:
            if split == "test" and k <= len(train.images):
                found[f"knn_{k}"] = knn_error(known, train.labels, features, labels, k)
        bar.update()
        found["interpolated_nll"] = {}
        for layer in range(network.depth):
            curve = interpolated_nll(
                network, images[pairs], labels[pairs], classes, layer, device, seed, batch_size=(batch_size + 1) // 2
            )
            found["interpolated_nll"][str(layer)] = curve
            bar.update()
        found["lams"] = LAMS
        if deformations:
            found["deformed_accuracy"] = {}
        for row in TABLE_5 if deformations else ():
            maps = matrices(row, len(images), seed)
            changed = predict(network, images, device, batch_size, change=partial(_deformed, maps))
            found["deformed_accuracy"][row.name] = 1 - error(changed, labels)
            bar.update()

    plot_reliability(parts, folder / "plots" / "reliability.png")
    plot_interpolation({run.name: [found["interpolated_nll"]]}, folder / "plots" / "interpolation.png")
    files.write(folder / "evaluation.json", json.dumps(found, indent=1) + "\n")
    print(f"{run}: {_table(found)}")


def _trained_on(run: Path, config: ClassifierConfig, saved: Checkpoint) -> Images:
    """The images a run was trained on, not augmented; raises UserError if they are unknown or have changed."""
    rows = trained_rows(run)
    images, labels = load(config.data)
    if int(rows.max()) >= len(images) or fingerprint(images[rows]) != saved.fact("data", str):
        raise UserError(f"{run} was trained on other images than those that its data.name and data.root now name")
    return Images(images[rows], labels[rows])


def _deformed(maps: Tensor, x: Tensor, rows: slice) -> Tensor:
    return deform(x, maps[rows].to(x.device))


def _table(found: dict[str, Any]) -> str:
    neighbours = [f"k={k} {found[f'knn_{k}']:.2%}" for k in NEIGHBOURS if f"knn_{k}" in found]
    lines = [
        f"{found['checkpoint']} checkpoint, step {found['step']}, on {found['num_images']} {found['split']} images",
        f"error {found['error']:.2%}   NLL {found['nll']:.4f}   ECE {found['ece']:.4f}",
        *(
            [f"on the images it was trained on: error {found['train_error']:.2%}   NLL {found['train_nll']:.4f}"]
            if "train_error" in found
            else []
        ),
        *(["kNN error " + "   ".join(neighbours)] if neighbours else []),
        "NLL of interpolated targets, mean over lam: "
        + "   ".join(f"layer {layer} {sum(c) / len(c):.3f}" for layer, c in found["interpolated_nll"].items()),
    ]
    deformed = found.get("deformed_accuracy", {})
    lines += [f"accuracy, {row.title:<28}{deformed[row.name]:.2%}" for row in TABLE_5 if row.name in deformed]
    return "\n".join(lines)
