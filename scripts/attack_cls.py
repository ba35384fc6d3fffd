"""Attack a trained classifier: FGSM, PGD, the unbounded sanity check, transfer, and whether gradients can be trusted.

    python scripts/attack_cls.py runs/fashion-manifold --eps '[0.01,0.025,0.05,0.1]' --transfer runs/fashion-none
    accelerate launch --num_processes 8 scripts/attack_cls.py runs/cifar10-manifold --num_images 10000

Prints a table and writes attack.json into the run's folder, attack.png and attack_examples.png into its plots; with
another norm or space than linf and pixel their names say it: attack-l2.json, attack-normalised.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from classifiers.attacks import check_eps
from classifiers.load import choose, finished, load_classifier
from classifiers.networks import normalise_of
from classifiers.plot import plot_attacked, plot_attacks
from classifiers.robustness import SLACK, UNBOUNDED, Attack, Bench, accuracy, checks
from classifiers.supervised import ClassifierLoss, CrossEntropy
from mmgan.data import fingerprint, load
from mmgan.engine import cli
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import stream
from mmgan.engine.run import make_accelerator
from mmgan.errors import UserError

EPS = {
    ("linf", "pixel"): (2 / 255, 4 / 255, 8 / 255, 16 / 255),
    ("linf", "normalised"): (0.03, 0.1, 0.3),
    ("l2", "pixel"): (0.25, 0.5, 1.0, 2.0),
    ("l2", "normalised"): (1.0, 2.0, 4.0, 8.0),
}
"""The grid where none is asked for; 0.03 is the eps of the authors' code."""
MARKS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Iterations after which accuracy is kept."""
LARGEST = 1_000_000
"""More iterations, restarts or images than anybody waits for."""
EXAMPLES = 8
LIBRARIES = ("torch", "accelerate", "numpy", "scipy")


def attack(
    run: Path,
    eps: list[float] | None = None,
    norm: Literal["linf", "l2"] = "linf",
    space: Literal["pixel", "normalised"] = "pixel",
    iterations: int = 50,
    step_size: float | None = None,
    restarts: int = 5,
    loss: ClassifierLoss = CrossEntropy(),  # noqa: B008
    num_images: int = 1000,
    transfer: Path | None = None,
    autoattack: bool = False,
    checkpoint: Literal["auto", "best", "last"] | int = "auto",
    split: Literal["test", "train"] = "test",
    seed: int = 0,
    batch_size: int = 100,
    output: Path | None = None,
    trust: bool = False,
) -> None:
    """Attack a trained classifier: FGSM, PGD, the unbounded check, transfer, and whether gradients can be trusted.

    Args:
        run: folder of the run
        eps: bounds of the perturbation; default: for linf in pixels 2, 4, 8 and 16 of 255
        norm: of the perturbation
        space: pixel: eps in units of [0, 1], images clamped to it; normalised: eps in units of the channels' deviations
            and nothing clamped, as in the authors' code, whose eps is 0.03
        iterations: of PGD
        step_size: of PGD; default: 2.5 eps / iterations (Madry et al.)
        restarts: of PGD, each from another random start
        loss: what the attacks raise: CrossEntropy, or BCESoftmax as in the authors' code
        num_images: how many images to attack, drawn from the split by the seed
        transfer: another run: PGD is made on it and shown to this one, a black-box attack
        autoattack: AutoAttack too, for every eps (package pyautoattack; pixel space; slow)
        checkpoint: best (by validation error), last, the step of one that was kept, or auto: best where there is one
        split: part of the data set to attack on
        seed: seed of the images and the random starts
        batch_size: images at once in each process; it changes nothing but rounding
        output: folder to write to; default: the run's
        trust: let the runs name classes that are not mmgan's own, which are then imported
    """
    grid = sorted(eps or EPS[norm, space])
    counts = {"iterations": iterations, "restarts": restarts, "num_images": num_images, "batch_size": batch_size}
    for name, count in counts.items():
        if not 0 < count <= LARGEST:
            raise UserError(f"{name} must be positive and at most {LARGEST}, not {count}")
    given = [("eps", bound) for bound in grid] + ([] if step_size is None else [("step_size", step_size)])
    for name, value in given:
        try:
            check_eps(value, name, norm if space == "pixel" else "l2")
        except ValueError as error:
            raise UserError(str(error)) from error
    if autoattack and space != "pixel":
        raise UserError("AutoAttack clamps to [0, 1]; take --space pixel")
    if autoattack and not find_spec("pyautoattack"):
        raise UserError("AutoAttack needs the package pyautoattack: pip install -e '.[attacks]'")
    libraries = (*LIBRARIES, "pyautoattack") if autoattack else LIBRARIES
    if transfer and transfer.resolve() == run.resolve():
        raise UserError(f"{transfer} is the run to attack; take another as --transfer")
    accelerator = make_accelerator(run, None, True, None)
    device = accelerator.device
    network, config, saved = load_classifier(run, which := choose(run, checkpoint), device, trust)
    if space == "normalised" and network.preprocess is not None:
        raise UserError(f"{run} whitens its images and divides by no deviations; take --space pixel")
    source = _source(transfer, saved, device, trust) if transfer else None
    with accelerator.local_main_process_first():
        images, labels = load(replace(config.data, split=split))
    rows = torch.randperm(len(images), generator=stream(seed, "attacked images", 0))[:num_images].sort().values
    images, labels = images[rows], labels[rows]
    folder, name = output or run, "-".join(["attack", *([norm] * (norm != "linf")), *([space] * (space != "pixel"))])
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder / 'plots'} ({error.strerror}); choose another --output") from error

    found: dict[str, Any] = {"checkpoint": which, "step": saved.step, "data": config.data.name, "split": split}
    found |= {"images": fingerprint(images), "num_images": len(images), "seed": seed, "run_seed": config.seed}
    found |= {"finished": finished(run, config), "norm": norm, "space": space, "loss": type(loss).__name__}
    found |= {"iterations": iterations}
    found |= {"step_size": step_size or "2.5 eps / iterations", "restarts": restarts, "batch_size": batch_size}
    found |= {"source": str(transfer) if transfer else None, "eps": grid, "slack": SLACK}
    found["libraries"] = {library: importlib.metadata.version(library) for library in libraries}
    marks = [t for t in MARKS if t < iterations] + [iterations]
    scale = normalise_of(network).std if space == "normalised" else None
    classes = saved.state["classes"]
    attacks = [
        Attack(bound, step_size or 2.5 * bound / iterations, iterations, random_start=True, restarts=restarts)
        for bound in grid
    ]
    with tqdm(desc=str(run), unit="image", disable=None if accelerator.is_main_process else True, leave=False) as bar:
        bench = Bench(network, images, labels, classes, loss, norm, scale, seed, batch_size, accelerator, bar.update)
        bar.total = sum(map(len, bench.share)) * (2 + len(grid) * (2 + (source is not None) + autoattack))
        found["clean"] = accuracy(bench.clean())
        found["fgsm"] = [{"eps": bound} | accuracy(bench.fgsm(bound)) for bound in grid]
        found["pgd"] = []
        for one in attacks:
            right, *marked = bench.pgd(one, marks=marks)
            over = {str(t): row.double().mean().item() for t, row in zip(marks, marked, strict=True)}
            found["pgd"].append(
                {"eps": one.eps, "step_size": one.step_size, **accuracy(right), "over_iterations": over}
            )
        found["unbounded"] = accuracy(bench.unbounded())
        if source:
            black_box = [one._replace(restarts=1) for one in attacks]
            found["transfer"] = [{"eps": one.eps} | accuracy(bench.pgd(one, source)[0]) for one in black_box]
        if autoattack:
            found["autoattack"] = [{"eps": bound} | accuracy(bench.auto(bound)) for bound in grid]
    signs = checks(found)
    found["checks"] = [check._asdict() for check in signs]
    if not accelerator.is_main_process:
        return

    few = torch.arange(min(EXAMPLES, len(images)))
    middle = attacks[len(attacks) // 2]
    plot_attacks(found, folder / "plots" / f"{name}.png")
    title = f"PGD, eps {middle.eps:.3g}, {norm}, {space} space"
    shown = images[few].float() / 255, bench.example(middle, few)
    plot_attacked(*shown, title, folder / "plots" / f"{name}_examples.png")
    part = folder / f".{name}.json.part"
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(folder / f"{name}.json")
    print(f"{run}: {_table(found)}")
    for check in signs:
        if check.passed is False:
            warnings.warn(f"not so: {check.name} ({check.found}); {check.meaning}", stacklevel=1)


def _source(run: Path, target: Checkpoint, device: torch.device, trust: bool) -> nn.Module:
    """The network of another run; raises UserError where it is none for the same images and classes."""
    network, _, saved = load_classifier(run, "auto", device, trust)
    for key in ("shape", "classes"):
        if saved.state[key] != target.state[key]:
            raise UserError(f"--transfer {run} has {key} {saved.state[key]}, the attacked run {target.state[key]}")
    return network


def _table(found: dict[str, Any]) -> str:
    units = {"pixel": "pixels in [0, 1], clamped", "normalised": "the channels' deviations, not clamped"}
    names = {"fgsm": "FGSM", "pgd": f"PGD-{found['iterations']} x {found['restarts']}"}
    names |= {"transfer": "transfer", "autoattack": "AutoAttack"}
    columns = [name for name in names if name in found]
    lines = [
        f"{found['checkpoint']} checkpoint, step {found['step']}, on {found['num_images']} {found['split']} images",
        f"{found['norm']} attacks, eps in units of {units[found['space']]}; accuracy in % [95 % interval]",
        f"without attack {_cell(found['clean'])}",
        "eps       " + "".join(f"{names[name]:<22}" for name in columns),
    ]
    for i, eps in enumerate(found["eps"]):
        lines.append(f"{eps:<10.4g}" + "".join(f"{_cell(found[name][i]):<22}" for name in columns))
    lines.append(f"unbounded PGD, {UNBOUNDED[0]} iterations of {UNBOUNDED[1]} a pixel: {_cell(found['unbounded'])}")
    words = {True: "passed", False: "FAILED", None: "-"}
    lines += [f"{words[check['passed']]:<8}{check['name']} ({check['found']})" for check in found["checks"]]
    return "\n".join(line.rstrip() for line in lines)


def _cell(row: dict[str, float]) -> str:
    return f"{100 * row['accuracy']:.2f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


if __name__ == "__main__":
    cli.run(lambda: cli.call(attack))
