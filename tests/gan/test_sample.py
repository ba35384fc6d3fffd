"""Images from a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmgan.engine.randomness import stream
from mmgan.gan.inputs import Inputs
from mmgan.gan.run import load
from mmgan.gan.sample import generate, interpolation
from mmgan.gan.state import STANDING
from tests.conftest import run, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder, "--steps", "6", "--ema", "0.5", "--checkpoint_every", "3", "--lr", "1e-2")
    return folder


def test_the_command_writes_a_grid_an_interpolation_and_single_images(trained: Path, tmp_path: Path) -> None:
    done = run("sample_gan", str(trained), "--num_images", "11", "--batch_size", "4", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "grid.png") as grid, Image.open(tmp_path / "interpolation.png") as path:
        assert grid.size == (10 * 34 + 2, 10 * 34 + 2)
        assert path.size == (12 * 34 + 2, 8 * 34 + 2)
    for i, image in enumerate(load(trained).sample(11)):
        with Image.open(tmp_path / "images" / f"{i:06d}.png") as written:
            assert np.array_equal(np.asarray(written), image[0].numpy())


def test_the_grid_of_a_run_is_that_of_its_averaged_weights(trained: Path, tmp_path: Path) -> None:
    run("sample_gan", str(trained), "--output", str(tmp_path))
    assert (trained / "samples" / "step-000006.png").read_bytes() == (tmp_path / "grid.png").read_bytes()


def test_image_i_depends_on_the_seed_and_on_i_alone(trained: Path) -> None:
    opened = load(trained)
    some = opened.sample(10, seed=3, start=1020)
    assert torch.equal(some[5:7], opened.sample(2, seed=3, start=1025))
    assert torch.equal(opened.sample(10, seed=3, start=1020, batch_size=3), some)
    assert not torch.equal(Inputs(4)(4, 0, 5), Inputs(4)(3, 0, 5))


def test_weights_and_checkpoints_can_be_chosen(trained: Path) -> None:
    z = Inputs(4)(0, 0, 4)

    def images(step: Literal["last"] | int, weights: str) -> torch.Tensor:
        return generate(load(trained, step, weights).generator, z)  # type: ignore[arg-type]

    assert torch.equal(images("last", "auto"), images(6, "ema"))
    assert not torch.equal(images(6, "ema"), images(6, "raw"))
    assert not torch.equal(images(3, "raw"), images(6, "raw"))


def test_the_average_has_batch_norm_statistics_of_its_own_passes(trained: Path) -> None:
    """And not those of the generator, whose activations are others: on the digits an FID of 3.2 instead of 1.2."""
    average, raw = load(trained).generator, load(trained, weights="raw").generator
    norms = {name: norm for name, norm in average.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    kept = {name: torch.stack([norm.running_mean, norm.running_var]) for name, norm in norms.items()}  # type: ignore[list-item]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, x, name=name: seen[name].append(x[0].detach()))
    for z in torch.randn(*STANDING, 4, generator=stream(0, "standing", 0)):
        average.train()(z)
    assert len(norms) == 3
    for name, batches in seen.items():
        moments = [torch.stack([x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).var(1)]) for x in batches]
        torch.testing.assert_close(kept[name], torch.stack(moments).mean(0), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(kept[name][0], raw.get_submodule(name).running_mean, rtol=1e-2)  # type: ignore[arg-type]


def test_generating_leaves_the_generator_as_it_was(trained: Path) -> None:
    generator = load(trained, weights="raw").generator
    generator.train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    generate(generator, Inputs(4)(0, 0, 8), batch_size=4)
    assert generator.training
    assert all(torch.equal(before[key], value) for key, value in generator.state_dict().items())


def test_an_interpolation_goes_from_one_latent_to_another_on_a_circle() -> None:
    z = Inputs(32)(0, 0, 6)
    path = interpolation(z[0::2], z[1::2], columns=5, z_dim=32).reshape(3, 5, 32)
    torch.testing.assert_close(path[:, 0], z[0:6:2])
    torch.testing.assert_close(path[:, -1], z[1:6:2])
    units = torch.nn.functional.normalize(path, dim=-1)
    middle = torch.nn.functional.normalize(units[:, 0] + units[:, -1], dim=-1)
    assert path.norm(dim=-1).min() > 0.6 * z.norm(dim=-1).min()
    assert (units[:, 2] * middle).sum(-1).min() > 0.95


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere is not a run"),
        (["RUN", "--checkpoint", "4"], "has no checkpoint of step 4; it has step-000003, step-000006"),
        (["RUN", "--num_images", "-1"], "num_images must be 0 or more"),
        (["RUN", "--output", "/proc/x"], "cannot write to /proc/x"),
    ],
)
def test_mistakes_get_one_line(trained: Path, options: list[str], words: str) -> None:
    done = run("sample_gan", *(str(trained) if option == "RUN" else option for option in options))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
