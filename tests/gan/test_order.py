"""Every two parts of a GAN at once (docs/composing.md): the terms and gradients of two steps, again in float64.

By hand, a mixed row at a time, from the numbers that were drawn: the order in which things happen is written out in
`Hand`, and in no other place of these tests.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from mmgan.engine import cli
from mmgan.engine.randomness import stream
from mmgan.gan.config import GANConfig
from mmgan.gan.data import inputs_of
from mmgan.gan.networks.conditional import Projection
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.mixup import Plans
from tests.conftest import digits
from tests.gan.test_augment import by_hand
from tests.mixup.cases import Mixed, eq_9, one_by_one

MIXUPS = {
    "mixup at the input": ["--mixup.layers", "[0]"],
    "mixup in hidden layers": ["--mixup.layers", "[1,2]", "--mixup.layer_per", "pair"],
    "CutMix": ["--mixup", "DiscriminatorCutMix", "--mixup.layers", "[0,1]"],
}
LOSSES = {loss: ["--loss", loss] for loss in ("JS", "Hinge", "Wasserstein", "LeastSquares", "Relativistic")}
OTHERS = {
    "conditional": ["--conditional", "matched"],
    "DiffAugment": ["--augment", "DiffAugment"],
    "R1": ["--r1_gamma", "0.7"],
    "R2": ["--r2_gamma", "0.3"],
}
PARTS = MIXUPS | OTHERS | LOSSES
PAIRS = [
    pair
    for pair in combinations(PARTS, 2)
    if not any(pair[0] in alike and pair[1] in alike for alike in (MIXUPS, LOSSES))  # a run has one of each
]
SIZE = 6
REAL: dict[str, Callable[[Tensor], Tensor]] = {
    "JS": lambda d: -torch.log(torch.sigmoid(d)),
    "Hinge": lambda d: torch.clamp(1 - d, min=0),
    "Wasserstein": lambda d: -d,
    "LeastSquares": lambda d: (1 - d) ** 2 / 2,
}
FAKE: dict[str, Callable[[Tensor], Tensor]] = {
    "JS": lambda d: -torch.log(1 - torch.sigmoid(d)),
    "Hinge": lambda d: torch.clamp(1 + d, min=0),
    "Wasserstein": lambda d: d,
    "LeastSquares": lambda d: d**2 / 2,
}
GENERATOR = REAL | {"Hinge": lambda d: -d}


class Hand:
    """The two losses of a step, in float64, a row at a time."""

    def __init__(self, steps: Steps) -> None:
        self.config, self.steps = steps.config, steps
        self.loss = type(self.config.loss).__name__
        networks = {name: copy.deepcopy(network).double() for name, network in steps.gan.networks.items()}
        self.generator, self.network = networks["generator"], networks["discriminator"]

    def logit(self, phi: Tensor, y: Tensor | None) -> Tensor:
        """(w + E y) . phi, where there are classes."""
        if not isinstance(self.network, Projection):
            return phi
        w, e = self.network.linear.weight, self.network.embedding.weight
        assert y is not None
        return torch.dot(w[0] + e @ y, phi)

    def rows(self, step: str, number: int) -> tuple[Tensor, Tensor | None]:
        """Real images and fakes, and their classes."""
        config, steps = self.config, self.steps
        real = steps.real(number, SIZE, step).double()
        y, counted = None, number + (step == "g-")
        z = steps.draws.normal(f"{step or 'd-'}latents", counted, SIZE, config.generator.z_dim).double()
        if config.conditional:
            y = torch.eye(10, dtype=torch.float64)[steps.real.labels(number, SIZE, step)].repeat(2, 1)
            z = torch.cat([z, y[SIZE:]], 1)
        return torch.cat([real, self.generator(z)]), y

    def terms(self, step: str, number: int) -> dict[str, Tensor]:
        """Of the discriminator's step, or with `step` "g-" of the generator's."""
        config = self.config
        x, y = self.rows(step, number)
        self.network(x.float().double(), *([Plans(), y] if y is not None else []))  # one power iteration a pass
        self.network.eval()
        features = self.network.features if isinstance(self.network, Projection) else self.network
        stages = list(features.stages)  # type: ignore[arg-type]
        seen = self.augmented(x, step, number)
        plain = torch.stack([self.logit(nn.Sequential(*stages)(row[None])[0], of) for row, of in self.each(seen, y)])
        d_real, d_fake = plain[:SIZE], plain[SIZE:]
        relativistic = self.loss == "Relativistic"
        if step == "g-" and relativistic:
            terms = {"generator": F.softplus(d_real - d_fake).mean()}
        elif step == "g-":
            terms = {"generator": GENERATOR[self.loss](d_fake).mean()}
        elif relativistic:
            terms = {"pair": F.softplus(d_fake - d_real).mean()}
        else:
            terms = {"real": REAL[self.loss](d_real).mean(), "fake": FAKE[self.loss](d_fake).mean()}
        if config.mixup:
            plans = config.mixup.draw(SIZE, stream(config.seed, "g-plan" if step else "plan", number))
            mixed = torch.stack([self.mixed(row, y, plain) for row in one_by_one(stages, seen, plans)]).mean()
            terms |= {"generator_mix": -mixed} if step == "g-" else {"mix": mixed}
        for name, gamma, kind in (("r1", config.r1_gamma, range(SIZE)), ("r2", config.r2_gamma, range(SIZE, 2 * SIZE))):
            if gamma and not step:
                squares = [self.squared_gradient(stages, x, y, i, number) for i in kind]
                terms |= {name: gamma / 2 * torch.stack(squares).mean()}
        return terms

    def each(self, x: Tensor, y: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        return [(row, None if y is None else y[i]) for i, row in enumerate(x)]

    def mixed(self, row: Mixed, y: Tensor | None, plain: Tensor) -> Tensor:
        """The loss of a mixed row, whose class and target are mixed as its states."""
        of = None if y is None else row.share * y[row.left] + (1 - row.share) * y[row.right]
        d, t = self.logit(row.output, of), eq_9(row, SIZE, "soft")
        if self.loss != "Relativistic":
            return t * REAL[self.loss](d) + (1 - t) * FAKE[self.loss](d)
        its = next((source for source in (row.left, row.right) if source >= SIZE), row.left + SIZE)
        p = torch.sigmoid(d - plain[its])
        return -(1 + t) / 2 * torch.log(p) - (1 - t) / 2 * torch.log(1 - p)

    def augmented(self, x: Tensor, step: str, number: int) -> Tensor:
        """Each image changed by itself; where no real ones are needed, the draws are of fakes alone."""
        config = self.config
        if not config.augment:
            return x
        alone = step == "g-" and not config.mixup and not config.loss.needs_real
        drawn = config.augment.draw(SIZE if alone else 2 * SIZE, stream(config.seed, f"{step}augment", number))
        u = torch.cat([torch.full((SIZE, 7), 0.5), drawn.u]) if alone else drawn.u
        return torch.stack([by_hand(image, row.tolist()) for image, row in zip(x, u.double(), strict=True)])

    def squared_gradient(self, stages: list[nn.Module], x: Tensor, y: Tensor | None, i: int, number: int) -> Tensor:
        """||grad||^2 of one logit in its image as it was, through the augmentation."""
        everything = x.detach().clone().requires_grad_()
        seen = self.augmented(everything, "", number)[i]
        d = self.logit(nn.Sequential(*stages)(seen[None])[0], None if y is None else y[i])
        (gradient,) = torch.autograd.grad(d, everything, create_graph=True)
        return gradient.square().sum()


def steps_of(tmp_path: Path, *options: str) -> Steps:
    AcceleratorState._reset_state(reset_partial_state=True)
    both = ["--batch_size", str(SIZE), "--n_dis", "1", "--lr", "1e-3"]
    config = cli.parse(GANConfig, "", [*digits(tmp_path), *both, *options]).config
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(40) % 10
    inputs = inputs_of(config, labels)
    torch.manual_seed(0)
    networks = build(config, 8, 1, len(inputs.names))
    return Steps(config, State(config, *networks, Accelerator(cpu=True), inputs), images, labels)


@pytest.mark.parametrize("pair", PAIRS, ids=" with ".join)
def test_two_parts_at_once_give_the_terms_and_gradients_that_are_computed_by_hand(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    options = [option for part in sorted(pair, key=[*MIXUPS, *LOSSES, *OTHERS].index) for option in PARTS[part]]
    steps = steps_of(tmp_path, *([] if set(pair) & MIXUPS.keys() else ["--mixup", "null"]), *options)
    for number in range(2):
        for step, network in (("", "discriminator"), ("g-", "generator")):
            hand = Hand(steps)
            want = hand.terms(step, number)
            torch.stack(list(want.values())).sum().backward()
            got = steps.generator(number)[0] if step else steps.discriminator(number)
            assert got.keys() == want.keys()
            for name, term in got.items():
                torch.testing.assert_close(term.detach().double(), want[name].detach(), rtol=1e-4, atol=1e-6)
            twin = dict(getattr(hand, "generator" if step else "network").named_parameters())
            wanted = {name: p.grad for name, p in twin.items() if p.grad is not None}
            noise = 2e-5 * max(float(gradient.abs().max()) for gradient in wanted.values())
            for name, p in steps.gan.networks[network].named_parameters():
                assert p.grad is not None, name
                torch.testing.assert_close(p.grad.double(), wanted[name], rtol=1e-3, atol=noise)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--conditional", "uniform", "--loss", "Relativistic"], "fakes of the same class; use matched"),
        (["--conditional", "uniform", "--reuse_fakes", "true"], "new labels of fakes for each step; leave it false"),
        (["--r1_gamma", "1", "--mixup.replace", "true"], "r1_gamma needs the plain rows"),
        (["--r2_gamma", "1", "--mixup.replace", "true"], "r2_gamma needs the plain rows"),
        (["--loss", "Relativistic", "--mixup.replace", "true"], "mixup.replace drops the plain rows"),
        (["--r2_gamma", "1", "--compile", "true"], "cannot differentiate twice"),
        (["--burn_in", "BurnIn"], "use lr_schedule constant"),
        (["--augment.kinds", "[colour,colour]"], "must be distinct"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: steps_of(tmp_path, *options))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
