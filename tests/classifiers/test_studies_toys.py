"""The studies that make their own data: rendered digits, and GANs of two-dimensional Gaussians."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from classifiers.studies import Setting, factors, gan2d
from mmgan.engine.randomness import stream
from mmgan.mixup import Plan

pytestmark = pytest.mark.slow

HIGH, LOW = (0.9, 0.92, 0.91), (0.2, 0.25, 0.21)
"""A measure of three seeds that is clearly larger than another."""


def by_seed(values: tuple[float, ...]) -> dict[str, float]:
    return {str(seed): value for seed, value in enumerate(values)}


# Rendering, drawing and mixing factors


def test_an_image_is_scipy_s_rotation_of_its_glyph() -> None:
    angle = torch.tensor([-70.0, -33.0, 0.0, 12.5, 50.0, 80.0])
    for glyph in range(2):
        upright = np.pad(factors.glyphs()[glyph, 0].double().numpy(), 20)
        images = factors.render(torch.full((6,), glyph), angle)
        assert images.shape == (6, 1, 28, 28)
        for image, degrees in zip(images[:, 0].numpy(), angle.tolist(), strict=True):
            want = ndimage.rotate(upright, -degrees, reshape=False, order=1)[20:-20, 20:-20]
            np.testing.assert_allclose(image, want, atol=2e-5)
            assert image.sum() == pytest.approx(upright.sum(), rel=0.05), "a turned glyph leaves the image"


@pytest.mark.parametrize("name", factors.TASKS)
def test_angles_and_labels_are_the_task_s(name: str) -> None:
    task = factors.TASKS[name]
    for ranges in (factors.TRAIN, task.test):
        glyph, angle, y = factors.draw(task, ranges, 4000, stream(0, "test", 0))
        assert glyph.tolist() == [0] * 2000 + [1] * 2000
        label = y[:, 1].bool()
        assert torch.equal(y.sum(1), torch.ones(4000))
        if task.label == "glyph":
            assert torch.equal(label, glyph == 1)
            label = angle > (ranges[0][1] + ranges[1][0]) / 2
        if ranges[0] != ranges[1]:
            assert 0.46 < label.double().mean() < 0.54
            for side, (low, high) in enumerate(ranges):
                part = angle[label == bool(side)]
                assert low <= part.min() < low + 0.05 * (high - low)
                assert high - 0.05 * (high - low) < part.max() <= high


def test_factor_mixup_renders_mixed_angles_with_mixed_labels() -> None:
    """lam, recomputed from the targets, gives the angle; pairs are of one glyph."""
    drawn = factors.draw(factors.TASKS["A"], factors.TRAIN, 64, stream(0, "factors", 0))
    x, y, plans = factors.batch("factor", drawn, stream(0, "mixup", 0))
    assert not plans
    lams = {round(min(t, 1 - t), 5) for t in y[:, 1].tolist()} - {0.0}
    assert len(lams) == 1, "one lam a batch"
    (lam,) = lams
    found = 0
    for row in range(64):
        others = [k for k in range(64) if drawn.glyph[k] == drawn.glyph[row]]
        for share in (lam, 1 - lam):
            mixed = share * drawn.angle[row] + (1 - share) * drawn.angle[others]
            images = factors.render(drawn.glyph[others], mixed)
            targets = share * drawn.y[row] + (1 - share) * drawn.y[others]
            same = (images - x[row]).abs().amax((1, 2, 3)) + (targets - y[row]).abs().amax(1)
            found += bool(same.min() < 1e-3)
    assert found >= 64


def test_input_mixup_pairs_any_two_images_and_none_mixes_nothing() -> None:
    drawn = factors.draw(factors.TASKS["A"], factors.TRAIN, 64, stream(0, "factors", 0))
    x, y, plans = factors.batch("input", drawn, stream(0, "mixup", 0))
    assert torch.equal(x, factors.render(drawn.glyph, drawn.angle))
    assert torch.equal(y, drawn.y)
    (plan,) = plans.plans
    assert plan.layer == 0
    assert (drawn.glyph[plan.left] != drawn.glyph[plan.right]).any()
    assert not factors.batch("none", drawn, stream(0, "mixup", 0))[2]


def numbers_of_factors(better: str) -> dict[str, Any]:
    """What a study would find in which `better`, of input and factor, has the higher accuracy and the lower NLL."""
    good, bad = ({"accuracy": by_seed(a), "nll": by_seed(n)} for a, n in ((HIGH, LOW), (LOW, HIGH)))
    middle = {"accuracy": by_seed((0.5, 0.4, 0.6)), "nll": by_seed((0.5, 0.55, 0.52))}
    arms = {"none": middle, "input": good if better == "input" else bad, "factor": good if better == "factor" else bad}
    return {"tasks": dict.fromkeys(factors.TASKS, arms)}


def test_the_verdicts_on_factors_follow_the_numbers() -> None:
    shows, opposite = "shows", "the opposite shows"
    assert [v.found for v in factors.verdicts(numbers_of_factors("factor"))] == [shows, shows, opposite] * 3
    assert [v.found for v in factors.verdicts(numbers_of_factors("input"))] == [opposite, opposite, shows] * 3
    same = numbers_of_factors("none")
    assert [v.found for v in factors.verdicts(same)][:2] == ["undecided"] * 2
    assert "0.910 +- 0.010 against 0.220 +- 0.026" in factors.verdicts(numbers_of_factors("factor"))[0].because


# Gaussians


@pytest.mark.parametrize(("target", "count"), [("ring", 8), ("grid", 25)])
def test_covered_gaussians_and_good_samples_are_what_numpy_counts(target: str, count: int) -> None:
    rng = np.random.default_rng(0)
    if target == "ring":
        means = np.array([(2 * np.cos(2 * np.pi * k / 8), 2 * np.sin(2 * np.pi * k / 8)) for k in range(8)])
    else:
        means = np.array([(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)], dtype=float)
    assert len(means) == count
    for spread in (0.02, 0.1, 0.3):
        samples = means[rng.integers(count // 2, size=300)] + spread * rng.standard_normal((300, 2))
        distance = np.hypot(*(samples[:, None] - means[None]).transpose(2, 0, 1))
        near = distance <= 0.15
        modes, share = gan2d.covered(torch.tensor(samples, dtype=torch.float32), target)
        assert modes == near.any(0).sum()
        assert share == pytest.approx(near.any(1).mean())
    assert gan2d.covered(torch.full((5, 2), 50.0), target) == (0, 0.0)


def test_the_mixtures_have_their_means_and_deviation() -> None:
    for target in gan2d.EXTENT:
        points = gan2d.draw(target, 20_000, stream(0, "points", 0))
        means = gan2d.centres(target)
        near = torch.cdist(points, means).argmin(1)
        for k, mean in enumerate(means):
            part = points[near == k]
            assert len(part) == pytest.approx(20_000 / len(means), rel=0.15)
            torch.testing.assert_close(part.mean(0), mean, atol=0.01, rtol=0)
            assert part.std(0).tolist() == pytest.approx([0.05, 0.05], rel=0.1)


def test_seeds_side_by_side_train_as_the_objective_of_one_gan_says() -> None:
    """Two steps of plain Adam, with the mixed loss written out, for the second of two seeds."""
    mixup, losses = gan2d.ARMS["hidden"], torch.nn.functional.binary_cross_entropy_with_logits
    got = gan2d.train("grid", mixup, [0, 1], 2)[1]
    G, D = gan2d.networks(1)
    optimisers = [torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999)) for net in (G, D)]
    n = gan2d.BATCH
    y = torch.cat([torch.ones(n), torch.zeros(n)])

    def mixed(real: torch.Tensor, fake: torch.Tensor, plan: Plan) -> torch.Tensor:
        assert plan.lam.shape == (3 * n,), "one coefficient for every pair of three kinds"
        h, lam = D.stages[0](torch.cat([real, fake])), plan.lam[:, None]
        logits = D.stages[2](D.stages[1](lam * h[plan.left] + (1 - lam) * h[plan.right]))
        return losses(logits, plan.lam * y[plan.left] + (1 - plan.lam) * y[plan.right])

    for step in range(2):
        draws = stream(1, "grid", step)
        real, z = gan2d.draw("grid", n, draws), torch.randn(2 * n, 2, generator=draws)
        assert mixup is not None
        plans = [mixup.draw(n, draws).plans[0] for _ in range(2)]
        fake = G(z[:n]).detach()
        optimisers[1].zero_grad()
        (losses(D(real), y[:n]) + losses(D(fake), y[n:]) + mixed(real, fake, plans[0])).backward()
        optimisers[1].step()
        fake = G(z[n:])
        optimisers[0].zero_grad()
        (losses(D(fake), y[:n]) - mixed(real, fake, plans[1])).backward()
        optimisers[0].step()
    for net, want in zip(got, (G, D), strict=True):
        for a, b in zip(net.parameters(), want.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_gan_learns_the_ring() -> None:
    with torch.no_grad():
        z = torch.randn(2500, 2, generator=stream(0, "samples", 0))
        G, _ = gan2d.networks(0)
        before = gan2d.covered(G(z), "ring")
    ((G, _),) = gan2d.train("ring", None, [0], 600)
    with torch.no_grad():
        after = gan2d.covered(G(z), "ring")
    assert after[0] >= 4 > before[0]
    assert after[1] > 5 * before[1]


def numbers_of_gans(better: str) -> dict[str, Any]:
    """What a study would find in which the arm `better` covers more and makes more good samples."""
    good, bad = ({"covered": by_seed(values), "quality": by_seed(values)} for values in (HIGH, LOW))
    arms = {arm: good if arm == better else bad for arm in gan2d.ARMS}
    return {"targets": {"ring": arms, "grid": arms}}


def test_the_verdicts_on_gans_follow_the_numbers() -> None:
    shows, opposite, same = ["shows"] * 2, ["the opposite shows"] * 2, ["undecided"] * 2
    found = {better: [v.found for v in gan2d.verdicts(numbers_of_gans(better))] for better in gan2d.ARMS}
    assert found["none"] == (opposite + same + opposite) * 2
    assert found["input"] == (shows + opposite + same) * 2
    assert found["hidden"] == (same + shows + shows) * 2


# Whole studies in their fast form


@pytest.mark.parametrize("study", [factors, gan2d], ids=["factors", "gan2d"])
def test_a_fast_study_reports_its_units_and_draws_its_picture(study: Any, tmp_path: Path) -> None:
    said: list[str] = []
    setting = Setting([0, 1], True, said.append)
    text = json.dumps(study.run(setting), allow_nan=False)
    assert len(said) == study.units(setting)
    assert len(text) < 400_000
    numbers = json.loads(text)
    assert study.verdicts(numbers)
    study.plot(numbers, tmp_path / "picture.png")
    assert 20_000 < (tmp_path / "picture.png").stat().st_size < 300_000
    if study is factors:
        return
    ((G, D),) = gan2d.train("grid", gan2d.ARMS["hidden"], [0], numbers["steps"])  # alone, without seed 1
    found = numbers["targets"]["grid"]["hidden"]
    with torch.no_grad():
        samples = G(torch.randn(gan2d.SAMPLES, 2, generator=stream(0, "samples", 0)))
        right_of_centre = D(torch.tensor([[5.0, 0.0]])).sigmoid().item()
    np.testing.assert_allclose(found["samples"], samples[: gan2d.SHOWN], atol=6e-4)
    assert found["landscape"][20][40] == pytest.approx(right_of_centre, abs=6e-4)
