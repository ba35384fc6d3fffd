"""Class-conditional GANs: the two layers by hand, classes that are mixed, labels that are drawn, and runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import mmgan
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.inputs import Inputs
from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig
from mmgan.gan.networks.conditional import ConditionalNorm, Projection
from mmgan.gan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from mmgan.gan.train import check
from mmgan.mixup import DiscriminatorCutMix, DiscriminatorMixup, DiscriminatorRule, Mixable, Plan, Plans, Staged
from tests.conftest import digits, run, train
from tests.gan.test_order import steps_of
from tests.mixup.cases import images, one_by_one, seeded

pytestmark = pytest.mark.slow

FAMILIES: list[tuple[GeneratorConfig, DiscriminatorConfig]] = [
    (ResNetGenerator(z_dim=4, width=4), ResNetDiscriminator(width=4)),
    (ResNetGenerator(z_dim=4, width=4, table="imagenet"), ResNetDiscriminator(width=4, table="imagenet")),
    (DCGANGenerator(z_dim=4, width=4), DCGANDiscriminator(width=4)),
]


# The two layers


def test_a_conditional_norm_has_the_scale_and_shift_of_each_row_s_class() -> None:
    torch.manual_seed(0)
    layer, x, labels = (
        ConditionalNorm(3, 5).double(),
        torch.randn(6, 3, 4, 4).double(),
        torch.tensor([0, 4, 2, 2, 1, 4]),
    )
    y = F.one_hot(labels, 5).double()
    torch.testing.assert_close(layer(x, y), nn.BatchNorm2d(3).double()(x), msg="at the start, of no class")
    with torch.no_grad():
        layer.gamma.weight.normal_()
        layer.beta.weight.normal_()
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    gamma, beta = layer.gamma.weight, layer.beta.weight
    for i, label in enumerate(labels):
        for c in range(3):
            want = gamma[c, label] * (x[i, c] - mean[c]) / (variance[c] + 1e-5).sqrt() + beta[c, label]
            torch.testing.assert_close(layer(x, y)[i, c], want)
    middle = layer(x, (y + y.roll(1, 0)) / 2)
    torch.testing.assert_close(middle, (layer(x, y) + layer(x, y.roll(1, 0))) / 2, msg="linear in the class")


def test_half_precision_does_not_round_the_scale_of_a_class() -> None:
    layer, x, y = ConditionalNorm(2, 3), torch.randn(8, 2, 4, 4), torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    with torch.no_grad():
        layer.gamma.weight[:, 1] = 1.003
    network = Projection(nn.Linear(2, 4), 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        ratio = (layer(x, y) / layer.norm(x))[1].mean()
        logits, mixed = network(torch.zeros(1, 2), Plans(), torch.tensor([[0.7001, 0.2999, 0]]))
    assert ratio.item() == pytest.approx(1.003, abs=5e-4)
    phi = network.features(torch.zeros(1, 2))
    torch.testing.assert_close(
        logits[0], (network.linear.weight[0] + network.embedding.weight @ mixed[0]) @ phi[0], atol=2e-3, rtol=2e-2
    )


def test_mixing_features_and_classes_is_the_identity_of_a_projection() -> None:
    """d(m) = lam d(a, y_a) + (1 - lam) d(b, y_b) - lam (1 - lam) (E_a - E_b) . (phi_a - phi_b)."""
    torch.manual_seed(0)
    features = nn.Linear(6, 5)
    network = Projection(Staged(features, nn.Identity()), 5, 3).double()
    x, y = torch.randn(2, 6).double(), torch.eye(3).double()[[0, 2]]
    lam = 0.25
    plans = Plans((Plan(1, torch.tensor([0]), torch.tensor([1]), torch.tensor(lam).double()),), rows=2)
    mixed, _ = network(x, plans, y)
    (a, b), e, phi = network(x, Plans(), y)[0], network.embedding.weight.T, features(x)
    w = network.linear.weight[0]
    torch.testing.assert_close(a, (w + e[0]) @ phi[0])
    want = lam * a + (1 - lam) * b - lam * (1 - lam) * (e[0] - e[2]) @ (phi[0] - phi[1])
    torch.testing.assert_close(mixed[0], want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "rule",
    [
        DiscriminatorMixup(layers=(0, 1), layer_per="pair"),
        DiscriminatorCutMix(layers=(0, 1), layer_per="pair"),
        DiscriminatorMixup(layers=(1,), replace=True, target="fake"),
    ],
)
@pytest.mark.parametrize("kind", [Staged, Mixable])
def test_a_mixed_row_has_the_class_of_its_two_rows(rule: DiscriminatorRule, kind: type) -> None:
    torch.manual_seed(0)
    stages = [nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(48, 5))]
    features = Staged(*stages) if kind is Staged else Mixable(nn.Sequential(*stages), ["0"])
    network = Projection(features, 5, 3).double()
    x, y = images(8), torch.eye(3).double()[torch.arange(8) % 3]
    plans = rule.draw(4, seeded(3))
    logits, of = network(x, plans, y)
    rows = list(one_by_one(stages, x, plans))
    classes = torch.stack([row.share * y[row.left] + (1 - row.share) * y[row.right] for row in rows])
    w, e = network.linear.weight[0], network.embedding.weight
    want = torch.stack([(w + e @ c) @ row.output for c, row in zip(classes, rows, strict=True)])
    torch.testing.assert_close(of[plans.plain :], classes, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits[plans.plain :], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("generator", "discriminator"), FAMILIES)
@pytest.mark.parametrize("size", [8, 32])
def test_every_family_has_conditional_networks(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, size: int
) -> None:
    torch.manual_seed(0)
    G, D = generator.build(size, 3, classes=5), discriminator.build(size, 3, classes=5)
    norms = [layer for layer in G.modules() if isinstance(layer, ConditionalNorm)]
    plain = [layer for layer in G.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    assert len(plain) == (0 if len(norms) == 1 else 1), "all but the last of several"
    z, y = torch.randn(5, 4), torch.eye(5)
    with torch.no_grad():
        for norm in norms:
            norm.beta.weight.normal_()
    made = G.eval()(torch.cat([z[:1].expand(5, -1), y], 1))
    assert made.shape == (5, 3, size, size)
    assert all(not torch.allclose(made[0], other) for other in made[1:]), "the class shows"
    logits, _ = D.eval()(made[:1].expand(5, -1, -1, -1), Plans(), y)
    assert logits.shape == (5,)
    assert len(logits.unique()) == 5
    spectral = torch.linalg.matrix_norm(D.embedding.weight, 2)  # type: ignore[arg-type]
    for _ in range(50):
        D.train()(made, Plans(), y)
    torch.testing.assert_close(torch.linalg.matrix_norm(D.eval().embedding.weight, 2), torch.tensor(1.0))  # type: ignore[arg-type]
    assert spectral > 0


# Labels


def test_label_i_depends_on_the_seed_and_on_i_alone_and_has_its_weight() -> None:
    inputs = Inputs(4, ("cat", "dog", "owl"), (10, 30, 60))
    some = inputs(3, 1000, 1060)
    assert torch.equal(some[20:30], inputs(3, 1020, 1030))
    assert torch.equal(some[:, :4], Inputs(4)(3, 1000, 1060)), "latents are those of a GAN without classes"
    assert torch.equal(some[:, 4:].argmax(1), inputs.labels(3, 1000, 1060))
    assert not torch.equal(inputs.labels(4, 0, 60), inputs.labels(3, 0, 60))
    counts = inputs.labels(0, 0, 20_000).bincount() / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.3, 0.6]), rtol=0, atol=0.015)
    among = inputs.labels(0, 0, 8000, ["owl", "cat"]).bincount() / 8000
    torch.testing.assert_close(among, torch.tensor([1 / 7, 0, 6 / 7]), rtol=0, atol=0.02)
    rows = inputs.rows(0, 4, ["owl", "cat"])
    assert torch.equal(rows[:, 4:].argmax(1), torch.tensor([2] * 4 + [0] * 4))
    assert torch.equal(rows[:4, :4], rows[4:, :4]), "the latents of a column are the same"
    with pytest.raises(UserError, match="unknown class bat; this run has cat, dog, owl"):
        inputs.numbers(["bat"])


@pytest.mark.parametrize("step", ["", "g-"])
def test_labels_of_fakes_are_uniform_or_those_of_the_real_rows(tmp_path: Path, step: str) -> None:
    for kind in ("uniform", "matched"):
        steps = steps_of(tmp_path, "--conditional", kind)
        drawn = [steps._classes(number, 6, step) for number in range(200)]
        real, fake = torch.stack([one.argmax(1) for one in drawn if one is not None]).split(6, dim=1)
        wanted = torch.cat([steps.real.labels(number, 6, step) for number in range(200)])
        assert torch.equal(real.flatten(), wanted), "the labels of the images of the batch"
        assert torch.equal(real, fake) == (kind == "matched")
        assert (fake.flatten().bincount(minlength=10) - 120).abs().max() < 40


@pytest.mark.parametrize("kind", ["uniform", "matched"])
def test_a_step_shows_each_network_the_classes_of_its_rows(tmp_path: Path, kind: str) -> None:
    """What the generator is given as class of a fake, the discriminator is given for that fake, in both steps."""
    steps = steps_of(tmp_path, "--conditional", kind, "--mixup", "null")
    given: list[Tensor] = []
    seen: list[Tensor] = []
    steps.gan.networks["generator"].register_forward_pre_hook(lambda _, x: given.append(x[0][:, -10:]))
    steps.gan.networks["discriminator"].register_forward_pre_hook(lambda _, x: seen.append(x[2][:, -10:]))
    steps.discriminator(0)
    steps.generator(0)
    assert torch.equal(seen[0][6:], given[0])
    assert torch.equal(seen[0][:6].argmax(1), steps.real.labels(0, 6))
    assert torch.equal(seen[1], given[1])


def test_what_has_no_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(noise).save(tmp_path / "images" / "cat" / f"{i}.png")
    data = {"name": "folder", "root": str(tmp_path / "images")}
    base = GANConfig(batch_size=2, mixup=None, conditional="uniform")
    of = replace(base.data, **data)
    with pytest.raises(UserError, match="conditional: 4 of 8 images of folder have no label"):
        check(replace(base, data=of))
    for i in range(4):
        (tmp_path / "images" / f"{i}.png").unlink()
    (tmp_path / "images" / "dog").mkdir()
    with pytest.raises(UserError, match="conditional: the training images have none of class dog"):
        check(replace(base, data=of))
    with pytest.raises(UserError, match=r"the 30 images of data\.subset have none of class 9"):
        check(replace(base, data=replace(base.data, name="digits", subset=30), seed=27))
    for options, words in (
        (
            ["--conditional", "matched", "--generator", "tests.gan.test_conditional.Without"],
            "Without has no conditional networks",
        ),
        (["--score.final_metrics", "intra"], "intra needs classes, which only a conditional GAN has"),
    ):
        with pytest.raises(UserError, match=words):
            steps_of(tmp_path / "run", *options)


class Without(ResNetGenerator):
    """A family without conditional networks."""

    def build(self, resolution: int, channels: int) -> nn.Module:  # type: ignore[override]
        """The network."""
        return super().build(resolution, channels)


# Runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditional") / "run"
    train(folder, "--conditional", "uniform", "--steps", "6", "--sample_every", "3", "--checkpoint_every", "3")
    return folder


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def test_the_sample_grid_has_a_row_a_class(trained: Path) -> None:
    opened = mmgan.load(trained)
    assert opened.inputs.names == tuple("0123456789")
    assert opened.inputs.weights == (1,) * 10
    made = opened.generator(opened.inputs.rows(0, 10))
    grid = pixels(trained / "samples" / "step-000006.png")
    cell = grid[2 + 3 * 34 :, 2 + 4 * 34 :][:32:4, :32:4]  # row 3, column 4, of 32 pixels and 2 between
    want = ((made[34, 0] + 1) * 128).floor().clamp(0, 255).to(torch.uint8).numpy()
    assert np.array_equal(cell, want)
    assert opened.sample(5, classes=[7]).shape == (5, 1, 8, 8)
    z = opened.inputs.of(opened.inputs.latents(0, 0, 5), torch.full((5,), 7))
    want = ((opened.generator(z) + 1) * 128).floor().clamp(0, 255).to(torch.uint8).numpy()
    assert np.array_equal(opened.sample(5, classes=["7"]).numpy(), want)


def test_sampling_chosen_classes_writes_a_folder_a_class(trained: Path, tmp_path: Path) -> None:
    line = ["--classes", "[3, 8]", "--num_images", "40", "--output", str(tmp_path)]
    done = run("sample_gan", str(trained), *line)
    assert done.returncode == 0, done.stderr
    assert "rows of grid.png: 3, 8" in done.stdout
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert {file.parent.name for file in files} == {"3", "8"}
    assert sorted(file.stem for file in files) == [f"{i:06d}" for i in range(40)]
    opened = mmgan.load(trained)
    labels = opened.inputs.labels(0, 0, 40, [3, 8])
    for file in files:
        i = int(file.stem)
        assert opened.inputs.names[labels[i]] == file.parent.name
        assert np.array_equal(pixels(file), opened.sample(1, 0, i, classes=[3, 8])[0, 0].numpy())
    assert pixels(tmp_path / "classes.png").shape == (2 * 34 + 2, 12 * 34 + 2)
    assert pixels(tmp_path / "grid.png").shape == (2 * 34 + 2, 10 * 34 + 2)
    done = run("sample_gan", str(trained), "--classes", "11")
    assert done.returncode == 2
    assert "unknown class 11; this run has 0, 1" in done.stderr


def test_an_interpolation_between_classes_is_linear_in_the_class(trained: Path, tmp_path: Path) -> None:
    assert run("sample_gan", str(trained), "--output", str(tmp_path)).returncode == 0
    opened = mmgan.load(trained)
    y = torch.lerp(torch.eye(10)[2], torch.eye(10)[3], 6 / 11)
    made = opened.generator(torch.cat([opened.inputs.latents(0, 0, 1), y[None]], 1))[0, 0]
    grid = pixels(tmp_path / "classes.png")
    cell = grid[2 + 2 * 34 :, 2 + 6 * 34 :][:32:4, :32:4].astype(float)
    assert np.abs(cell - (((made.detach() + 1) * 128).floor().clamp(0, 255)).numpy()).max() <= 1


def test_a_run_is_scored_class_by_class_as_its_images_are(trained: Path, tmp_path: Path) -> None:
    """FID of each class by its labels, and by the folders that its images are written into."""
    torch.manual_seed(0)
    means = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    assert run("sample_gan", str(trained), "--num_images", "300", "--output", str(tmp_path)).returncode == 0
    options = {"extractor": means, "metrics": "fid,intra", "floor": False}
    by_run = mmgan.score(trained, "digits:train", num_samples=300, output=tmp_path / "a.json", **options)
    by_files = mmgan.score(tmp_path / "images", "digits:train", **options)
    assert len(by_run["scores"]) == 12
    assert by_run["scores"] == pytest.approx(by_files["scores"], rel=1e-6)
    assert by_run["stamp"]["labels"] == "uniform"
    own = mmgan.score(trained, num_samples=300, output=tmp_path / "b.json", **options)
    assert own["scores"] == pytest.approx(by_run["scores"], rel=1e-9)


def test_a_folder_of_classes_trains_a_conditional_gan_that_has_their_names(tmp_path: Path) -> None:
    for name, level in (("dark", 20), ("light", 220)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            noise = np.random.default_rng(i).integers(0, 30, (8, 8, 3)) + level
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    options = ["--data.name", "folder", "--data.root", str(tmp_path / "images"), "--conditional", "matched"]
    options += ["--augment", "DiffAugment", "--steps", "4", "--checkpoint_every", "2"]
    train(tmp_path / "run", *options)
    opened = mmgan.load(tmp_path / "run")
    assert (opened.inputs.names, opened.inputs.weights) == (("dark", "light"), (8, 8))
    assert opened.sample(3, classes=["light"]).shape == (3, 3, 8, 8)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000004")
    (tmp_path / "images" / "light" / "0.png").rename(tmp_path / "images" / "dark" / "moved.png")
    done = run("train_gan", "--config", str(tmp_path / "run" / "config.yaml"), "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "was trained on images or labels that differ" in done.stderr


def test_a_label_that_changes_is_another_training_set(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "data.npz", noise, labels)
    options = ["--data.name", "array", "--data.root", str(tmp_path / "data.npz"), "--conditional", "matched"]
    train(tmp_path / "run", *options, "--steps", "4", "--checkpoint_every", "2")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000004")
    np.savez(tmp_path / "data.npz", noise, 1 - labels)
    done = run("train_gan", "--config", str(tmp_path / "run" / "config.yaml"), "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "was trained on images or labels that differ" in done.stderr


def test_classes_are_those_of_the_run_that_one_starts_from_or_is_scored_with(trained: Path, tmp_path: Path) -> None:
    for folders, name in ((("a", "b"), "images"), (("a", "c"), "others")):
        for folder in folders:
            (tmp_path / name / folder).mkdir(parents=True)
            for i in range(8):
                noise = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / name / folder / f"{i}.png")
    options = ["--data.name", "folder", "--conditional", "uniform", "--steps", "2"]
    train(tmp_path / "run", *options, "--data.root", str(tmp_path / "images"))
    start = [*digits(tmp_path / "next"), *options, "--data.root", str(tmp_path / "others"), "--init_from"]
    for source, words in (
        (tmp_path / "run", "has the classes a, b, not the classes a, c"),
        (trained, "9, not the"),
    ):
        done = run("train_gan", *start, str(source))
        assert done.returncode == 2
        assert words in done.stderr
    by: dict[str, Any] = {"extractor": nn.Flatten(), "metrics": "intra", "num_samples": 16}
    with pytest.raises(UserError, match="intra: the class folders of both sets must have the same names"):
        mmgan.score(tmp_path / "run", root=str(tmp_path / "others"), **by)
    assert mmgan.score(tmp_path / "run", **by)["scores"].keys() == {"fid/0", "fid/1", "intra_fid"}


def test_several_seeds_are_scored_by_the_classes_that_all_of_them_have(trained: Path, tmp_path: Path) -> None:
    """In 30 samples a class of ten often has fewer than the two that an FID takes."""
    torch.manual_seed(0)
    means = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    seeds = [0, 1, 2, 3, 4]
    record = mmgan.score(
        trained,
        "digits:train",
        extractor=means,
        metrics="intra",
        num_samples=30,
        seeds=seeds,
        floor=False,
        output=tmp_path / "scores.json",
    )
    inputs = mmgan.load(trained).inputs
    often = [inputs.labels(seed, 0, 30).bincount(minlength=10) > 1 for seed in seeds]
    kept = torch.stack(often).all(0).nonzero().flatten().tolist()
    assert 0 < len(kept) < 10
    found = {name for name in record["scores"] if name.startswith("fid/") and not name.endswith("_std")}
    assert found == {f"fid/{one}" for one in kept}
    mean = sum(record["scores"][name] for name in found) / len(found)
    assert record["scores"]["intra_fid"] == pytest.approx(mean)


def test_images_of_other_samples_are_not_mixed_with_new_ones(trained: Path, tmp_path: Path) -> None:
    line = [str(trained), "--num_images", "10", "--output", str(tmp_path)]
    assert run("sample_gan", *line).returncode == 0
    again = run("sample_gan", *line, "--seed", "1")
    assert again.returncode == 2
    assert "has images of other samples; choose another --output" in again.stderr


def test_diagnostics_give_every_image_its_class(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    kept = next(row for row in rows if row["step"] == 6 and "d/real" in row)
    opened = mmgan.load(trained)
    fakes, labels = opened.sample(256), opened.inputs.labels(0, 0, 256)
    logits, _ = opened.discriminator(fakes.float() / 127.5 - 1, Plans(), opened.inputs.vectors(labels))
    assert kept["d/fake"] == pytest.approx(logits.mean().item(), rel=1e-4)
    assert kept["d/gap"] == pytest.approx(kept["d/real"] - kept["d/held_out"])
