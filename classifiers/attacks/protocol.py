"""The protocol by which a trained classifier is attacked; scripts/attack_cls.py says which files it writes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from classifiers.attacks.gradient import Attack, Norm, check_eps
from classifiers.attacks.plots import plot_attacked, plot_attacks
from classifiers.attacks.robustness import LEAST_CLASSES, SLACK, UNBOUNDED, Bench, accuracy, checks
from classifiers.load import choose, finished, load_classifier
from classifiers.networks import normalise_of
from classifiers.supervised import ClassifierLoss, CrossEntropy
from mmgan.data import DataChange, fingerprint, load
from mmgan.engine import files
from mmgan.engine.accelerator import make_accelerator
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import stream
from mmgan.errors import UserError

EPS = {
    ("linf", "pixel"): (2 / 255, 4 / 255, 8 / 255, 16 / 255),
    ("linf", "normalised"): (0.03, 0.1, 0.3),
    ("l2", "pixel"): (0.25, 0.5, 1.0, 2.0),
    ("l2", "normalised"): (1.0, 2.0, 4.0, 8.0),
}
"""The default grid; 0.03 is the eps of the authors' code."""
MARKS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Iterations after which accuracy is recorded."""
LARGEST = 1_000_000
"""The limit on every count, such as iterations, restarts and images: more than anybody would wait for."""
EOT = 20
"""Number of gradients averaged for a network that draws at random, as in AutoAttack."""
EXAMPLES = 8
LIBRARIES = ("torch", "accelerate", "numpy", "scipy")


def attack(
    run: Path,
    eps: list[float] | None = None,
    norm: Norm = "linf",
    space: Literal["pixel", "normalised"] = "pixel",
    iterations: int = 50,
    step_size: float | None = None,
    restarts: int = 5,
    eot: int | None = None,
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
    data: DataChange = DataChange(),  # noqa: B008
) -> None:
    """Attack a trained classifier: FGSM, PGD, the unbounded check, transfer, and whether gradients can be trusted.

    Args:
        run: folder of the run
        eps: bounds on the perturbation; default, for linf in pixels: 2, 4, 8 and 16 of 255
        norm: norm of the perturbation
        space: pixel: eps in units of [0, 1], images clamped to it; normalised: eps in units of the channels' standard
            deviations and nothing clamped, as in the authors' code, whose eps is 0.03
        iterations: iterations of PGD
        step_size: step size of PGD; default: 2.5 eps / iterations (Madry et al.)
        restarts: restarts of PGD, each from another random start; an image counts as right only if the network gets it
            right after every one of them
        eot: passes whose gradients are averaged in every iteration; default: 20 for a network that is random at test
            time, such as one with a section fortified, and 1 for others. On a random network AutoAttack runs in its
            version rand, which averages 20 regardless of eot
        loss: loss that the attacks increase: CrossEntropy, or BCESoftmax as in the authors' code
        num_images: number of images to attack, drawn from the split with the seed
        transfer: another run: PGD is run on it and its images are shown to this one, a black-box attack
        autoattack: also run AutoAttack for every eps (needs the package pyautoattack and pixel space; slow)
        checkpoint: best (by validation error), last, the step of a kept checkpoint, or auto: best if it exists, else
            last
        split: part of the data set to attack
        seed: seed of the choice of images and of the random starts
        batch_size: images per batch in each process; changes only rounding, and the random draws of a network
        output: folder to write to; default: the run folder
        trust: allow the runs to name classes from outside mmgan, which are then imported
        data: the run's images, if they have moved since: --data.root FOLDER
    """
    grid = sorted(eps or EPS[norm, space])
    counts = {"iterations": iterations, "restarts": restarts, "num_images": num_images, "batch_size": batch_size}
    _check_options(grid, step_size, norm, space, autoattack, eot=eot, **counts)
    libraries = (*LIBRARIES, "pyautoattack") if autoattack else LIBRARIES
    if transfer and transfer.resolve() == run.resolve():
        raise UserError(f"{transfer} is the run under attack; use another for --transfer")
    accelerator = make_accelerator(run, None, True, None)
    device = accelerator.device
    network, config, saved = load_classifier(run, which := choose(run, checkpoint), device, trust)
    if space == "normalised" and network.preprocess is not None:
        raise UserError(f"{run} whitens its images and divides by no deviations; use --space pixel")
    source, other = _source(transfer, saved, device, trust) if transfer else (None, None)
    if autoattack and saved.state["classes"] < LEAST_CLASSES:
        raise UserError(f"AutoAttack needs {LEAST_CLASSES} classes; {run} has {saved.state['classes']}: leave it out")
    with accelerator.local_main_process_first():
        images, labels = load(replace(data.of(config.data), split=split)).labelled()
    rows = torch.randperm(len(images), generator=stream(seed, "attacked images", 0))[:num_images].sort().values
    images, labels = images[rows], labels[rows]
    shown = images[:2].to(device).float() / 255
    random = draws_at_random(network, shown)
    of_source = eot or (EOT if source and draws_at_random(source, shown) else 1)
    eot = eot or (EOT if random else 1)
    folder, name = output or run, "-".join(["attack", *([norm] * (norm != "linf")), *([space] * (space != "pixel"))])
    with files.writing(folder):
        (folder / "plots").mkdir(parents=True, exist_ok=True)

    found: dict[str, Any] = {"checkpoint": which, "step": saved.step, "data": config.data.name, "split": split}
    found |= {"images": fingerprint(images), "num_images": len(images), "seed": seed, "run_seed": config.seed}
    found |= {"finished": finished(run, config), "norm": norm, "space": space, "loss": type(loss).__name__}
    found |= {"iterations": iterations, "step_size": step_size or "2.5 eps / iterations", "restarts": restarts}
    found |= {"batch_size": batch_size, "random": random, "eot": eot}
    found |= {"transfer_eot": of_source if source else None}
    found |= {"source": str(transfer) if transfer else None, "eps": grid, "slack": SLACK}
    found["libraries"] = {library: importlib.metadata.version(library) for library in libraries}
    marks = [t for t in MARKS if t < iterations] + [iterations]
    scale = normalise_of(network).std if space == "normalised" else None
    attacks = [
        Attack(bound, step_size or 2.5 * bound / iterations, iterations, norm, True, restarts, loss, eot, scale)
        for bound in grid
    ]
    middle = attacks[len(attacks) // 2]
    begun = Begun(folder / f"{name}.begun.json", found | {"weights": [_hash(one) for one in (saved, other) if one]})
    accelerator.wait_for_everyone()  # all processes read it before one writes
    keep = partial(begun.result, write=accelerator.is_main_process)
    with tqdm(desc=str(run), unit="image", disable=None if accelerator.is_main_process else True, leave=False) as bar:
        classes = saved.state["classes"]
        bench = Bench(network, images, labels, classes, seed, batch_size, accelerator, random, bar.update)
        bar.total = sum(map(len, bench.share)) * (2 + random + len(grid) * (2 + (source is not None) + autoattack))

        def over_eps(name: str, measure: Callable[[Attack], dict[str, Any]]) -> list[dict[str, Any]]:
            def row(one: Attack) -> dict[str, Any]:
                return {"eps": one.eps} | measure(one)

            return [keep(f"{name} {one.eps}", partial(row, one)) for one in attacks]

        def pgd(one: Attack) -> dict[str, Any]:
            right, *marked = bench.pgd(one, marks=marks)
            over = {str(t): row.double().mean().item() for t, row in zip(marks, marked, strict=True)}
            return {"step_size": one.step_size, **accuracy(right), "over_iterations": over}

        found["clean"] = keep("clean", lambda: accuracy(bench.clean()))
        if random:
            found["changed"] = keep("changed", lambda: {"share": bench.changed().double().mean().item()})
        found["fgsm"] = over_eps("fgsm", lambda one: accuracy(bench.fgsm(one)))
        found["pgd"] = over_eps("pgd", pgd)
        found["unbounded"] = keep("unbounded", lambda: accuracy(bench.unbounded(middle)))
        if source:
            found["transfer"] = over_eps(
                "transfer", lambda one: accuracy(bench.pgd(replace(one, restarts=1, eot=of_source), source)[0])
            )
        if autoattack:
            found["autoattack"] = over_eps("autoattack", lambda one: accuracy(bench.auto(one)))
    signs = checks(found)
    found["checks"] = [check._asdict() for check in signs]
    if not accelerator.is_main_process:
        return

    _write(folder / f"{name}.json", found)
    begun.file.unlink(missing_ok=True)
    few = torch.arange(min(EXAMPLES, len(images)))
    plot_attacks(found, folder / "plots" / f"{name}.png")
    arm = "/".join(run.resolve().parts[-2:])
    title = f"{arm}: PGD, eps {middle.eps:.3g}, {norm}, {space} space"
    plot_attacked(*bench.example(middle, few), labels[few], title, folder / "plots" / f"{name}_examples.png")
    print(f"{run}: {_table(found)}")
    for check in signs:
        if check.passed is False:
            warnings.warn(f"failed: {check.name} ({check.found}); {check.meaning}", stacklevel=1)


def _check_options(
    grid: Sequence[float],
    step_size: float | None,
    norm: Norm,
    space: Literal["pixel", "normalised"],
    autoattack: bool,
    **counts: int | None,
) -> None:
    """Raise UserError for an option that no classifier could be attacked with."""
    for name, count in counts.items():
        if count is not None and not 0 < count <= LARGEST:
            raise UserError(f"{name} must be positive and at most {LARGEST}, not {count}")
    bounds = [("eps", bound) for bound in grid] + ([] if step_size is None else [("step_size", step_size)])
    try:
        for name, bound in bounds:
            check_eps(bound, name, norm if space == "pixel" else "l2")  # in space "normalised", eps may exceed 1
    except ValueError as error:
        raise UserError(str(error)) from error
    if autoattack and space != "pixel":
        raise UserError("AutoAttack clamps to [0, 1]; use --space pixel")
    if autoattack and not importlib.util.find_spec("pyautoattack"):
        raise UserError("AutoAttack needs the package pyautoattack: pip install -e '.[attacks]'")


class Begun:
    """Results as they come in, kept in a file so that the same command, started again, reuses them."""

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        """`settings` are everything that the results depend on: results with other settings are not reused."""
        self.file, self.settings = file, json.loads(json.dumps(settings))
        self.results: dict[str, Any] = {}
        try:
            made = json.loads(file.read_text()) if file.is_file() else {}
            if made.get("settings") == self.settings:
                self.results = dict(made["results"])
        except (ValueError, KeyError, TypeError, AttributeError):
            warnings.warn(f"{file} is damaged; its results are computed again", stacklevel=2)

    def result(self, name: str, make: Callable[[], dict[str, Any]], write: bool) -> dict[str, Any]:
        """The result called `name`, computed if there is none yet; only one process may `write`."""
        if name not in self.results:
            self.results[name] = make()
            if write:
                _write(self.file, {"settings": self.settings, "results": self.results})
        found: dict[str, Any] = self.results[name]
        return found


def _write(file: Path, values: dict[str, Any]) -> None:
    files.write(file, json.dumps(values, indent=1) + "\n")


def _hash(saved: Checkpoint) -> str:
    """A hash that identifies a checkpoint's weights."""
    return hashlib.sha256((saved.path / "checksums.json").read_bytes()).hexdigest()


@torch.no_grad()
def draws_at_random(network: nn.Module, x: Tensor) -> bool:
    """Whether two passes of `x` [B, C, R, R] in evaluation mode differ by more than rounding."""
    return not torch.allclose(network(x), network(x), equal_nan=True)


def _source(run: Path, target: Checkpoint, device: torch.device, trust: bool) -> tuple[nn.Module, Checkpoint]:
    """The network of another run; raises UserError if it is not for the same images and classes."""
    network, _, saved = load_classifier(run, "auto", device, trust)
    for key in ("shape", "classes"):
        if saved.state[key] != target.state[key]:
            raise UserError(f"--transfer {run} has {key} {saved.state[key]}, the attacked run {target.state[key]}")
    return network, saved


def _table(found: dict[str, Any]) -> str:
    units = {"pixel": "pixels in [0, 1], clamped", "normalised": "the channels' deviations, not clamped"}
    names = {"fgsm": "FGSM", "pgd": f"PGD-{found['iterations']} x {found['restarts']}"}
    names |= {"transfer": "transfer", "autoattack": "AutoAttack"}
    columns = [name for name in names if name in found]
    lines = [
        f"{found['checkpoint']} checkpoint, step {found['step']}, on {found['num_images']} {found['split']} images",
        f"{found['norm']} attacks, eps in units of {units[found['space']]}; accuracy in % [95 % interval]",
        f"without attack {_cell(found['clean'])}",
        *_randomness(found),
        "eps       " + "".join(f"{names[name]:<22}" for name in columns),
    ]
    for i, eps in enumerate(found["eps"]):
        lines.append(f"{eps:<10.4g}" + "".join(f"{_cell(found[name][i]):<22}" for name in columns))
    lines.append(f"unbounded PGD, {UNBOUNDED[0]} iterations of {UNBOUNDED[1]} a pixel: {_cell(found['unbounded'])}")
    words = {True: "passed", False: "FAILED", None: "-"}
    lines += [f"{words[check['passed']]:<8}{check['name']} ({check['found']})" for check in found["checks"]]
    return "\n".join(line.rstrip() for line in lines)


def _randomness(found: dict[str, Any]) -> list[str]:
    if not found["random"]:
        return []
    share, eot = found["changed"]["share"], found["eot"]
    return [f"the network draws at random: {share:.2%} change class from pass to pass; {eot} gradient(s) averaged"]


def _cell(row: dict[str, float]) -> str:
    return f"{100 * row['accuracy']:.2f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
