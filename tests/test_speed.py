"""What makes a step fast, as far as it is not a matter of time."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmgan.gan.config import GANConfig
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.mixup import DiscriminatorMixup
from tests.conftest import ROOT, run


def steps(mixup: DiscriminatorMixup | None) -> Steps:
    AcceleratorState._reset_state(reset_partial_state=True)
    config = GANConfig(
        generator=ResNetGenerator(width=8, z_dim=4),
        discriminator=ResNetDiscriminator(width=8),
        mixup=mixup,
        batch_size=8,
    )
    images = torch.randint(256, (32, 3, 16, 16), dtype=torch.uint8)
    return Steps(config, State(config, *build(config, 16, 3), Accelerator(cpu=True)), images)


class Counter(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] = self.counts.get(func.name(), 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("mixup", "reads"), [(None, 0), (DiscriminatorMixup(), 2)])
def test_a_step_reads_nothing_back_from_the_device(mixup: DiscriminatorMixup | None, reads: int) -> None:
    """The one value read for each of the two steps is the layer, drawn on the CPU."""
    one = steps(mixup)
    with Counter() as counter:
        one.discriminator(0)
        one.generator(0)
    assert counter.counts.get("aten::_local_scalar_dense", 0) == reads
    assert not {"aten::nonzero", "aten::equal"} & counter.counts.keys()


def test_real_fake_and_mixed_rows_cost_one_pass() -> None:
    """As many convolutions with mixup as without."""
    counts = []
    for mixup in (None, DiscriminatorMixup()):
        one = steps(mixup)
        with Counter() as counter:
            one.discriminator(0)
        counts.append(counter.counts["aten::convolution"])
    assert counts[0] == counts[1]


def test_the_generator_s_step_computes_no_gradient_of_the_discriminator_s_weights() -> None:
    one = steps(DiscriminatorMixup())
    before = {name: p.clone() for name, p in one.gan.networks["discriminator"].named_parameters()}
    one.generator(0)
    for name, p in one.gan.networks["discriminator"].named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[name])
        assert p.requires_grad


def test_networks_and_their_states_are_channels_last() -> None:
    one = steps(DiscriminatorMixup())
    formats = []

    def look(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
        formats.append(output.is_contiguous(memory_format=torch.channels_last))

    for network in one.gan.networks.values():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d) or type(module).__name__ in ("_Up", "_First", "_Plain"):
                module.register_forward_hook(look)
    one.discriminator(0)
    one.generator(0)
    assert len(formats) > 20
    assert all(formats)


RECORDS = {"gan": "gan-64-presets.json", "classifier": "classifier.json", "scoring": "scoring.json"}


@pytest.mark.parametrize(
    ("program", "options", "lines"),
    [
        (
            "gan",
            ["--resolution", "8", "--channels", "1", "--g_width", "8", "--d_width", "8", "--batch_size", "4"],
            {"/ plain": 10, "three discriminator passes / one": 3, "peak memory": 2},
        ),
        (
            "classifier",
            ["--resolution", "8", "--width", "0.125", "--batch_size", "4"],
            {"images a second here / with a DataLoader": 1, "step with mixup at layer": 4},
        ),
        ("scoring", ["--resolution", "8", "--num_samples", "20"], {"images a second, features and moments": 1}),
    ],
)
def test_a_benchmark_runs(program: str, options: list[str], lines: dict[str, int], tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    done = run(f"../benchmarks/{program}", *options, "--rounds", "1", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert {words: done.stdout.count(words) for words in lines} == lines
    record = json.loads(file.read_text())
    assert record["setting"]["resolution"] == 8
    assert record["command"].startswith(f"python scripts/../benchmarks/{program}.py --resolution 8")
    kept = [row["name"] for row in record["rows"]] + record["notes"]
    assert all(done.stdout.count(name) == 1 for name in kept)
    old = json.loads((ROOT / "docs/results/benchmark" / RECORDS[program]).read_text())
    assert old.keys() == record.keys()
    assert old["setting"].keys() == record["setting"].keys()
    assert [row["name"] for row in old["rows"]] == [row["name"] for row in record["rows"]]


def test_the_benchmark_s_networks_without_fused_convolutions_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    config = GANConfig(generator=ResNetGenerator(width=8), discriminator=ResNetDiscriminator(width=8), batch_size=4)
    gans = []
    for apart in (False, True):
        AcceleratorState._reset_state(reset_partial_state=True)
        gans.append(import_module("gan").make_steps(16, 3, None, config, apart).gan)
    for name, x in (("generator", torch.randn(4, 128)), ("discriminator", torch.randn(4, 3, 16, 16))):
        fused, unfused = (gan.networks[name].eval()(x) for gan in gans)
        torch.testing.assert_close(unfused, fused)
