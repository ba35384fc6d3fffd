"""What makes a step fast, as far as it is not a matter of time."""

from __future__ import annotations

import json
import subprocess
import sys
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
from tests.conftest import ENVIRONMENT, ROOT, run

pytestmark = pytest.mark.slow


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


def test_the_generator_s_step_passes_no_more_rows_than_its_loss_has() -> None:
    """B fakes and 3B mixed rows above the mix; the real rows are passed as far as they are mixed, and no further."""
    one = steps(DiscriminatorMixup(layers=(1,)))
    rows = []
    discriminator = one.gan.networks["discriminator"]
    for stage in discriminator.stages:
        stage.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    one.generator(0)
    assert rows == [16, 32, 32, 32, 32][: len(rows)]
    assert len(rows) == discriminator.depth


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


FAULTS = """
import resource, sys, torch
from mmgan.engine.accelerator import accelerator_of
if sys.argv[1] == "kept":
    accelerator_of()
for i in range(12):
    if i == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several = [torch.ones(2**23) for _ in range(3)]
    del several
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_process_keeps_the_memory_that_tensors_gave_back() -> None:
    """Tensors of 32 MiB made anew, three at a time: page faults of the last ten times."""
    faults = {}
    for name in ("given", "kept"):
        line = [sys.executable, "-c", FAULTS, name]
        done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        faults[name] = int(done.stdout)
    assert 10 * faults["kept"] < faults["given"]


@pytest.mark.parametrize(
    ("program", "options", "lines"),
    [
        (
            "gan",
            ["--resolution", "8", "--channels", "1", "--g_width", "8", "--d_width", "8", "--batch_size", "4"],
            {"/ plain": 15, "three discriminator passes / one": 3, "peak memory": 2},
        ),
        (
            "classifier",
            ["--resolution", "8", "--width", "0.125", "--batch_size", "4"],
            {"images a second here / with a DataLoader": 1, "step with mixup at layer": 4, "of its passes, counted": 7},
        ),
        ("scoring", ["--resolution", "8", "--num_samples", "20"], {"images a second": 1, "samples a second": 1}),
        ("folders", ["--resolution", "8", "--num_samples", "10"], {"images a second, two folders of PNGs / ": 2}),
        (
            "processes",
            ["--resolution", "8", "--g_width", "8", "--d_width", "8", "--batch_size", "8", "--steps", "1"],
            {"images a second of two": 2},
        ),
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
    assert all(done.stdout.count(f"\n{name}") == 1 for name in kept)
    counts = [row["median"] for row in record["rows"] if "of its passes, counted" in row["name"]]
    assert counts == [1.0] * len(counts), "a step makes the passes that it must, and none twice"
    old = json.loads((ROOT / "docs/results/benchmark" / f"{program}.json").read_text())
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
