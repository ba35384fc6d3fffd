"""A GAN run as a user starts, breaks and resumes it: real processes, real files."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import (
    ENVIRONMENT,
    ROOT,
    SMALL,
    begin,
    command,
    digits,
    result,
    run,
    same,
    stop,
    train,
    wait_for_step,
)

pytestmark = pytest.mark.slow

BUSY = ["--ema", "0.9", "--n_dis", "2", "--data.flip", "true", "--log_every", "7"]
"""Options that give a run all the state it can have."""
EVERYTHING = ["--conditional", "matched", "--augment", "DiffAugment", "--r1_gamma", "0.5", "--r2_gamma", "0.25"]
EVERYTHING += ["--loss", "Relativistic", "--lr_schedule", "constant", "--burn_in", "BurnIn", "--burn_in.images", "500"]
"""All parts of a discriminator at once, and what changes with the step."""


def start(output: Path, *options: str, processes: int = 1) -> subprocess.Popen[str]:
    return begin("train_gan", *digits(output), *options, processes=processes)


def test_killed_at_random_moments_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    options = [*BUSY, *EVERYTHING, "--steps", "60", "--checkpoint_every", "5"]
    train(tmp_path / "whole", *options)
    moments = random.Random(time.time_ns())
    kills = 0
    for _ in range(3):
        with start(tmp_path / "killed", *options) as process:
            wait_for_step(process)
            time.sleep(moments.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    done = train(tmp_path / "killed", *options)
    assert "resuming after step" in done.stdout or "is finished" in done.stdout
    assert same(result(tmp_path / "whole"), result(tmp_path / "killed"))


def test_a_signal_saves_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    options = [*BUSY, "--steps", "150", "--checkpoint_every", "1000"]
    train(tmp_path / "whole", *options)
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = tmp_path / number.name
        with start(folder, *options) as process:
            text = stop(process, number)
        assert process.returncode == 128 + number, text
        assert "run the same command to continue" in text
        assert 0 < result(folder)[0]["step"] < 150
        train(folder, *options)
        assert same(result(tmp_path / "whole"), result(folder))


def test_a_run_stops_with_its_launcher(tmp_path: Path) -> None:
    """Killed alone, as by a scheduler, `accelerate launch` leaves its process behind; it saves and ends."""
    line = command("train_gan", *digits(tmp_path / "run"), "--steps", "100000", "--log_every", "1", "--ema", "0.9")
    launch = [line[0], "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", *line[1:]]
    with subprocess.Popen(launch, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert "run the same command to continue" in stop(process, signal.SIGKILL)
    assert result(tmp_path / "run")[0]["step"] > 0


def test_a_run_outlives_the_shell_that_started_it(tmp_path: Path) -> None:
    """Started in the background by a shell that then ends, it goes on."""
    line = command("train_gan", *digits(tmp_path / "run"), "--steps", "60", "--log_every", "1")
    shell = ["sh", "-c", f"{shlex.join(line)} & sleep 0.1"]
    done = subprocess.run(shell, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "is finished" in done.stdout
    assert result(tmp_path / "run")[0]["step"] == 60


def test_a_finished_run_says_so_and_is_left_alone(tmp_path: Path) -> None:
    train(tmp_path, "--steps", "4")
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".jsonl")
    }
    again = train(tmp_path, "--steps", "4")
    assert "is finished" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_watching_a_run_changes_nothing_in_it(tmp_path: Path) -> None:
    train(tmp_path / "a", "--steps", "12")
    watch = ["--sample_every", "1", "--log_every", "1", "--checkpoint_every", "3", "--tracker", "tensorboard"]
    train(tmp_path / "b", "--steps", "12", *watch)
    (a, _), (b, rows) = result(tmp_path / "a"), result(tmp_path / "b")
    assert same(a["generator"], b["generator"])
    assert same(a["discriminator"], b["discriminator"])
    grids = list((tmp_path / "b" / "samples").glob("step-*"))
    assert len(grids) == sum("loss/real" in row for row in rows) == sum("d/real" in row for row in rows) == 12
    base = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())["lr"]
    rates = [row["lr"] for row in rows if "loss/real" in row]
    assert rates == pytest.approx([base * (1 - done / 12) for done in range(12)])
    tracked = EventAccumulator(str(tmp_path / "b" / "mmgan"), {"images": 0}).Reload()
    assert [event.value for event in tracked.Scalars("lr")] == pytest.approx(rates)
    pictures = tracked.Images("samples")
    assert [picture.step for picture in pictures] == list(range(1, 13))
    with Image.open(BytesIO(pictures[-1].encoded_image_string)) as shown, Image.open(sorted(grids)[-1]) as grid:
        assert np.array_equal(np.array(shown.convert("L")), np.array(grid.convert("L")))
    (options,) = (tmp_path / "b").rglob("hparams.yml")
    assert yaml.safe_load(options.read_text()).items() >= {"steps": 12, "generator.init_args.width": 8}.items()
    with Image.open(tmp_path / "b" / "plots" / "losses.png") as picture:
        assert picture.size[0] > 500


def settled(generator: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The generator's tensors without the biases before a batch norm, and the mean that follows them.

    Their gradient is nothing but rounding, of which Adam makes steps as large as any.
    """
    free = ("conv1.bias", "conv2.bias", "shortcut.bias", "running_mean")
    return {name: tensor for name, tensor in generator.items() if not name.endswith(free)}


def test_half_precision_trains_as_full_precision_does(tmp_path: Path) -> None:
    train(tmp_path / "full", "--steps", "6")
    done = train(tmp_path / "half", "--steps", "6", "--mixed_precision", "bf16")
    assert re.search(r"bfloat16 convolutions are \d+\.\d times as fast as float32 ones here", done.stdout)
    full, half = result(tmp_path / "full")[0], result(tmp_path / "half")[0]
    assert not same(settled(full["generator"]), settled(half["generator"]))
    torch.testing.assert_close(settled(full["generator"]), settled(half["generator"]), atol=5e-3, rtol=0.1)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in half["generator"].values())


def test_compiled_networks_train_as_others_do(tmp_path: Path) -> None:
    options = [
        "--steps",
        "2",
        "--n_dis",
        "1",
        "--generator.width",
        "4",
        "--discriminator.width",
        "4",
        "--log_every",
        "1",
    ]
    options += ["--mixup.layers", "[1]"]
    train(tmp_path / "plain", *options)
    train(tmp_path / "compiled", *options, "--compile", "true")
    plain, compiled = result(tmp_path / "plain"), result(tmp_path / "compiled")
    assert plain[0]["generator"].keys() == compiled[0]["generator"].keys()
    own, other = ((settled(made[0]["generator"]), made[0]["discriminator"]) for made in (plain, compiled))
    torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-3)
    losses = [[row for row in rows if "loss/mix" in row] for _, rows in (plain, compiled)]
    for one, other in zip(*losses, strict=True):
        assert {name: one[name] for name in one if "loss" in name} == pytest.approx(
            {name: other[name] for name in other if "loss" in name}, rel=1e-3
        )


def test_two_processes_run_and_resume(tmp_path: Path) -> None:
    options = ["--steps", "150", "--log_every", "5", "--g_batch_size", "8"]
    with start(tmp_path / "stopped", *options, processes=2) as process:
        stop(process, signal.SIGTERM)
    done = result(tmp_path / "stopped")[0]["step"]
    assert 0 < done < 150
    one = shutil.copytree(tmp_path / "stopped", tmp_path / "one")
    assert "process(es)" not in train(tmp_path / "stopped", *options, processes=2).stdout
    said = train(one, *options).stdout
    assert f"{one} was trained by 2 process(es) up to step {done} and continues with 1" in said
    assert not same(result(one), result(tmp_path / "stopped")), "batch norm's statistics are each process's own"
    train(tmp_path / "whole", *options, processes=2)
    assert same(result(tmp_path / "stopped"), result(tmp_path / "whole"))
    losses = [row["step"] for row in result(tmp_path / "whole")[1] if "loss/real" in row]
    assert losses == list(range(5, 151, 5))
    assert json.loads((tmp_path / "whole" / "environment.json").read_text())[0]["processes"] == 2


MIXED = [[], ["--mixup", "null"], ["--mixup.layer_per", "pair"], ["--mixup", "DiscriminatorCutMix"], EVERYTHING]


def test_two_processes_get_the_gradient_of_one(tmp_path: Path) -> None:
    """The discriminator's, given the same fakes, to 1e-5 and on every rank."""
    lines = [[*digits(tmp_path / "unused"), *mixed] for mixed in MIXED]
    for processes in (1, 2):
        done = run("../tests/discriminator_gradient", json.dumps(lines), str(tmp_path), processes=processes)
        assert done.returncode == 0, done.stderr
    for i, mixed in enumerate(MIXED):
        one, two, other = (torch.load(tmp_path / f"{i}-{of}.pt") for of in ("1-0", "2-0", "2-1"))
        assert max(float(g.abs().max()) for g in one["gradients"].values()) > 1e-2
        torch.testing.assert_close(two["gradients"], one["gradients"], atol=1e-5, rtol=1e-5)
        assert same(two["gradients"], other["gradients"]), mixed
        assert same(two["weights"], other["weights"]), "updates keep the ranks' weights the same"


# What a user can get wrong


def image_folder(path: Path, n: int = 16) -> Path:
    path.mkdir()
    for i in range(n):
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / f"{i}.png")
    return path


def broken_folder(path: Path) -> Path:
    image_folder(path, 3)
    (path / "1.png").write_bytes((path / "1.png").read_bytes()[:200])
    return path


def fails(*options: str) -> str:
    """Run the command; its one line of error."""
    done = run("train_gan", *options)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(done.stderr.splitlines()) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stepz", "1"], "unrecognized arguments: --stepz"),
        (["--mixup.alpha", "1.5"], "mixup.alpha must be in (0, 1], not 1.5"),
        (["--mixup.layers", "[0,9]"], "the network has layers 0 (its input) to 3"),
        (["--batch_size", "2000"], "batch_size 2000 is larger than the data set of 1500 images"),
        (["--data.name", "cifar10"], "cifar10 is missing or damaged in"),
        (["--data.name", "cifar11"], "data.name 'cifar11' is neither one of array, cifar10"),
        (["--data.resolution", "30"], "no ResNet for 30 pixels"),
        (
            ["--generator", "UNet"],
            "generator must be DCGANGenerator, ResNetGenerator, or your own class as module.Class, not UNet",
        ),
        (
            ["--loss", "L2"],
            "loss must be JS, Hinge, LeastSquares, Wasserstein, Relativistic, or your own class as module.Class",
        ),
        (["--tracker", "abacus"], "tracker 'abacus' is not installed"),
        (["--mixed_precision", "fp16"], "needs a GPU"),
        (["--compile", "true", "--r1_gamma", "1"], "compile cannot differentiate twice, which r1_gamma needs"),
        (["--output", "/proc/run"], "choose another --output"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    root = ["--data.root", str(tmp_path / "data")]
    assert words in fails(*digits(tmp_path / "run"), *root, *options)


def test_bad_folders_get_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    broken = broken_folder(tmp_path / "images") / "1.png"
    folder = [*digits(tmp_path / "run"), "--data.name", "folder", "--data.root"]
    assert "no images under" in fails(*folder, str(tmp_path / "empty"))
    assert "1 of 3 images under" in (line := fails(*folder, str(broken.parent)))
    assert "cannot be used: 1.png (" in line


def test_a_changed_configuration_and_a_foreign_checkpoint_get_one_line(tmp_path: Path) -> None:
    train(tmp_path / "a", "--steps", "4", "--checkpoint_every", "2")
    train(tmp_path / "b", "--steps", "4", "--checkpoint_every", "2", "--discriminator.width", "16")
    other = [*digits(tmp_path / "a"), "--checkpoint_every", "2", "--steps", "6"]
    line = fails(*other)
    assert f"{tmp_path}/a holds a run with steps 4, not 6; choose another --output" in line
    assert f"--init_from {tmp_path}/a (lr_schedule linear depends on" in line
    checkpoints = tmp_path / "a" / "checkpoints"
    for path in checkpoints.iterdir():
        shutil.rmtree(path)
    shutil.copytree(tmp_path / "b" / "checkpoints" / "step-000002", checkpoints / "step-000002")
    same_again = [*digits(tmp_path / "a"), "--checkpoint_every", "2", "--steps", "4"]
    assert "step-000002 holds a different discriminator" in fails(*same_again)


def test_other_images_than_a_run_began_with_get_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = image_folder(tmp_path / "images")
    options = ["--data.name", "folder", "--data.root", str(folder), "--data.resolution", "8", "--steps", "150"]
    with start(tmp_path / "run", *options, "--log_every", "1") as process:
        stop(process, signal.SIGTERM)
    (folder / "7.png").write_bytes((folder / "6.png").read_bytes())
    assert "was trained on images or labels that differ" in fails(
        *digits(tmp_path / "run"), *options, "--log_every", "1"
    )


def test_a_torn_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path: Path) -> None:
    options = ["--steps", "8", "--checkpoint_every", "4", "--log_every", "1"]
    train(tmp_path / "a", *options)
    train(tmp_path / "b", *options)
    weights = tmp_path / "a" / "checkpoints" / "step-000008" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    again = train(tmp_path / "a", *options)
    assert "skipping the checkpoint" in again.stderr
    assert "resuming after step 4" in again.stdout
    assert same(result(tmp_path / "a"), result(tmp_path / "b"))


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path: Path) -> None:
    line = fails(*digits(tmp_path), "--lr", "1e30", "--loss", "Wasserstein", "--steps", "40", "--log_every", "40")
    assert "at step" in line
    assert "loss/" in line
    assert not list((tmp_path / "checkpoints").iterdir())


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    """The step that ruins them has itself a finite loss."""
    first = ["--reuse_fakes", "true", "--g_batch_size", "8"]  # both updates before any loss shows what they did
    line = fails(
        *digits(tmp_path), *first, "--lr", "3e38", "--steps", "9", "--log_every", "9", "--checkpoint_every", "1"
    )
    assert "is not finite after step 1" in line
    assert "last good checkpoint: none yet" in line
    assert not list((tmp_path / "checkpoints").iterdir())


# Configurations


@pytest.mark.parametrize("file", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs" / "gan").rglob("*.yaml")))
def test_every_configuration_runs(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For two steps, at its own settings but for the widths and, where they have to be fetched, images and scores."""
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for label in "01":
        image_folder(tmp_path / "images" / label)
    data = ["--data.name", "folder", "--data.root", str(tmp_path / "images"), "--score", "null"]
    base = ["--config", "configs/gan/digits.yaml"] if "mixup" in file else []
    here = ["--data.name", "digits"] if base else data
    options = [*base, "--config", file, "--output", str(tmp_path / "run"), *here, *SMALL, "--steps", "2"]
    done = run("train_gan", *options, "--tracker", "null")
    assert done.returncode == 0, done.stderr
    head = (ROOT / file).read_text()
    assert all(word in head for word in ("scripts/train_gan.py", "# Cost: "))
    assert "# Expected" in head or "# Published" in head
    assert "XXX" not in head
