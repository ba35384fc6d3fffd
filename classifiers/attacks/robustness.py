"""Accuracy under attack, and whether the numbers can be believed: section 5.3 and appendix F."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.stats import binomtest
from torch import Tensor, nn

from classifiers.attacks.gradient import Attack, fgsm, iterates, pgd
from mmgan.engine.randomness import stream

UNBOUNDED = (200, 0.01)
"""Iterations and step of appendix F's sanity check, which has no bound."""
ZERO = 0.01
"""The largest accuracy that this check may leave; the paper's networks kept 1 and 0 %."""
SLACK = 0.01
"""The share of images by which the attack that should be stronger may fall behind, since attacks are not optimal."""

LEAST_CLASSES = 4
"""The number of classes that AutoAttack needs."""


@dataclass(frozen=True)
class Bench:
    """Images to attack, shared among processes.

    Batches are cut from all images and dealt out in turn, and a random start depends only on the seed, the restart and
    the image, so the result does not depend on the number of processes. The network's random draws depend on the seed
    and the batch.
    """

    network: nn.Module
    """In evaluation mode."""
    images: Tensor
    """uint8 [N, C, R, R]."""
    labels: Tensor
    """int64 [N]."""
    classes: int
    seed: int
    batch_size: int
    accelerator: Accelerator
    random: bool = False
    """Whether the network draws at random even in evaluation mode."""
    advance: Callable[[int], object] = lambda _: None
    """Called with the number of images in each batch that a process has done."""

    @property
    def share(self) -> list[range]:
        """The batches of this process."""
        n, size, world = len(self.images), self.batch_size, self.accelerator.num_processes
        starts = range(0, n, size)[self.accelerator.process_index :: world]
        return [range(first, min(first + size, n)) for first in starts]

    def clean(self) -> Tensor:
        """Which images the network gets right without attack: bool [N] on the CPU, like all methods."""
        return self._over_processes(lambda x, y, _: self._right(x, y)[None])[0]

    def fgsm(self, attack: Attack) -> Tensor:
        """Which images it gets right under FGSM with the eps of `attack`: bool [N].

        Images that are misclassified without attack are attacked too: a network that reads the label off the
        perturbation gets some of them right.
        """

        def judge(x: Tensor, y: Tensor, _: range) -> Tensor:
            return self._right(fgsm(self.network, x, self._target(y), attack), y)[None]

        return self._over_processes(judge)[0]

    def pgd(self, attack: Attack, source: nn.Module | None = None, marks: Sequence[int] = ()) -> Tensor:
        """Which images it gets right under `attack`: bool [1 + len(marks), N].

        Row 0 is after all iterations of all restarts, the others after `marks` iterations of the first start. With
        `source` the attack is made on that network, and this one only judges.
        """

        def judge(x: Tensor, y: Tensor, rows: range) -> Tensor:
            right = self._right(x, y)
            marked = torch.zeros(len(marks), len(x), dtype=torch.bool, device=x.device)
            for restart in range(attack.restarts):
                left = right.nonzero()[:, 0]
                if not len(left):
                    break
                noise = self._noise(restart, [rows[i] for i in left.tolist()]) if attack.random_start else None
                images, labels = x[left], y[left]
                for t, adversarial in enumerate(
                    iterates(source or self.network, images, self._target(labels), attack, noise)
                ):
                    if restart == 0 and t + 1 in marks:
                        marked[marks.index(t + 1), left] = self._right(adversarial, labels)
                right[left] = self._right(adversarial, labels)
            return torch.cat([right[None], marked])

        return self._over_processes(judge, 1 + len(marks))

    def unbounded(self, attack: Attack) -> Tensor:
        """Which images it gets right under appendix F's sanity check, with the loss and scale of `attack`: bool [N].

        Its steps move every pixel, whatever the norm: 200 steps of Euclidean length 0.01 would be a bound of 2.
        """
        iterations, step_size = UNBOUNDED
        free = Attack(math.inf, step_size, iterations, loss=attack.loss, eot=attack.eot, scale=attack.scale)
        return self.pgd(free)[0]

    def changed(self) -> Tensor:
        """Images whose predicted class changes in a second pass: bool [N]."""

        def judge(x: Tensor, _: Tensor, __: range) -> Tensor:
            with torch.no_grad():
                return (self.network(x).argmax(1) != self.network(x).argmax(1))[None]

        return self._over_processes(judge)[0]

    def auto(self, attack: Attack) -> Tensor:
        """Which images it gets right under AutoAttack (Croce & Hein 2020): bool [N].

        Uses the standard version or, for a network that draws at random, `rand`, which averages 20 gradients; from
        `attack` it takes eps and norm. It works in pixel space, with the package pyautoattack. Its targeted parts aim
        at nine classes, or all others if there are fewer; their loss compares with the fourth largest logit, so at
        least `LEAST_CLASSES` are needed.
        """
        from pyautoattack import AutoAttack  # noqa: PLC0415  # an optional extra

        logging.getLogger("auto-attack").setLevel(logging.ERROR)
        norm, device = {"linf": "Linf", "l2": "L2"}[attack.norm], self.accelerator.device
        version = "rand" if self.random else "standard"

        def judge(x: Tensor, y: Tensor, _: range) -> Tensor:
            made = AutoAttack(self.network, norm=norm, eps=attack.eps, seed=self.seed, device=device, version=version)
            made.apgd_targeted.n_target_classes = made.fab.n_target_classes = min(9, self.classes - 1)
            adversarial, _ = made.run_standard_evaluation(x, y, batch_size=len(x))
            return self._right(adversarial.to(device), y)[None]

        return self._over_processes(judge)[0]

    def example(self, attack: Attack, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The images of `rows`, their predicted classes, and both under `attack` (first restart), on the CPU.

        Images are float32 [n, C, R, R], classes int64 [n].
        """
        x, y = self._load(rows)
        noise = self._noise(0, rows.tolist()) if attack.random_start else None
        with self._seeded(0):
            moved = pgd(self.network, x, self._target(y), attack, noise)
            with torch.no_grad():
                seen, fooled = (self.network(shown).argmax(1).cpu() for shown in (x, moved))
        return x.cpu(), seen, moved.cpu(), fooled

    def _load(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        device = self.accelerator.device
        return self.images[rows].to(device).float() / 255, self.labels[rows].to(device)

    def _target(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.classes).float()

    def _noise(self, restart: int, rows: Sequence[int]) -> Tensor:
        shape = self.images.shape[1:]
        made = [torch.randn(shape, generator=stream(self.seed, f"start/{restart}", row)) for row in rows]
        return torch.stack(made).to(self.accelerator.device)

    @contextmanager
    def _seeded(self, first: int) -> Iterator[None]:
        """Seed the network's random draws for a batch that begins with row `first`; the global stream is restored."""
        device = self.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(stream(self.seed, "network", first).initial_seed())
            yield

    @torch.no_grad()
    def _right(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network(x).argmax(1) == y

    def _over_processes(self, judge: Callable[[Tensor, Tensor, range], Tensor], n: int = 1) -> Tensor:
        """The results of `judge` for the batches of all processes: bool [n, N] on the CPU."""
        right = torch.zeros(n, len(self.images), dtype=torch.int32, device=self.accelerator.device)
        for rows in self.share:
            with self._seeded(rows.start):
                right[:, rows.start : rows.stop] = judge(*self._load(slice(rows.start, rows.stop)), rows).int()
            self.advance(len(rows))
        summed: Tensor = self.accelerator.reduce(right, "sum")
        return summed.bool().cpu()


def accuracy(right: Tensor) -> dict[str, float]:
    """Share of True in bool [N], with Wilson's 95 % confidence interval (1927) for other images of the kind."""
    found = binomtest(int(right.sum()), len(right))
    interval = found.proportion_ci(0.95, method="wilson")
    return {"accuracy": found.statistic, "low": interval.low, "high": interval.high}


class Check(NamedTuple):
    """A line of the report on gradient masking."""

    name: str
    passed: bool | None
    """None: what it needs was not measured."""
    found: str
    meaning: str
    """What a failure means."""


def checks(found: Mapping[str, Any]) -> list[Check]:
    """Whether robustness may be an artefact of misleading gradients (Athalye et al. 2018; Carlini et al. 2019).

    `found` is what protocol.py writes; each line reports the worst case. Passing them all does not prove robustness;
    failing one means that the accuracies under attack are too high.
    """
    fgsm, pgd, transfer = (
        {row["eps"]: row["accuracy"] for row in found.get(name, ())} for name in ("fgsm", "pgd", "transfer")
    )
    clean, unbounded = found["clean"]["accuracy"], found["unbounded"]["accuracy"]
    curves = [(row["eps"], list(row["over_iterations"].items())) for row in found["pgd"]]
    averaged = Check(
        "gradients of a network that draws at random are averaged",
        found.get("eot", 1) > 1,
        f"{found.get('eot', 1)} passes per iteration",
        "the gradient of one draw does not lead to errors on the next; use eot 20, say",
    )
    return [
        *([averaged] if found.get("random") else []),
        Check(
            f"unbounded PGD leaves at most {ZERO:.0%}",
            unbounded <= ZERO,
            f"{unbounded:.2%} after {UNBOUNDED[0]} iterations of {UNBOUNDED[1]}",
            "the attack fails although it may show any image: gradients do not lead to errors that exist",
        ),
        _check(
            "PGD is at least as strong as FGSM",
            {f"eps {eps:.4g}": pgd[eps] - fgsm[eps] for eps in pgd if eps in fgsm},
            "many small steps do worse than a large one: gradients vanish, or change from step to step",
        ),
        _check(
            "more iterations never help the defender",
            {
                f"eps {eps:.4g}, {more} iterations for {fewer}": later - earlier
                for eps, curve in curves
                for (fewer, earlier), (more, later) in combinations(curve, 2)
            },
            "climbing the loss does not lead to errors: the gradients or the step size are at fault",
        ),
        _check(
            "a transferred attack is not stronger than one by gradients",
            {f"eps {eps:.4g}": pgd[eps] - transfer[eps] for eps in pgd if eps in transfer},
            "another network's gradients fool this one better than its own, which must be masked",
        ),
        _check(
            "FGSM does not raise accuracy",
            {f"eps {eps:.4g}": value - clean for eps, value in fgsm.items()},
            "the network reads the label off the perturbation (label leaking)",
        ),
    ]


def _check(name: str, excesses: Mapping[str, float], meaning: str) -> Check:
    """A check that no accuracy under the attack that should be stronger exceeds the weaker one's by more than SLACK."""
    if not excesses:
        return Check(name, None, "not measured", meaning)
    where, worst = max(excesses.items(), key=lambda one: one[1])
    return Check(name, worst <= SLACK + 1e-9, f"{where}: {100 * worst:+.2f} points", meaning)
