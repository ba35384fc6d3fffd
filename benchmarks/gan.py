"""Time a GAN's step: the cost of mixup, of three passes instead of one, and of the convolutions alone.

python benchmarks/gan.py --resolution 32 --g_width 256 --d_width 128 --batch_size 16
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timing import Ratio, each, measure, operations, report
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmgan.engine import cli
from mmgan.engine.accelerator import accelerator_of
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import resnet
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.mixup import Plans

PRESETS = ("paper", "eq11", "split", "official-code", "zhang")
LAYERS = (0, 1, 2)


def gan(
    resolution: int = 32,
    channels: int = 3,
    g_width: int = 256,
    d_width: int = 128,
    batch_size: int = 16,
    rounds: int = 10,
    mixed_precision: Literal["bf16", "fp16"] | None = None,
    output: Path | None = None,
) -> None:
    """Print the cost of mixup, of three passes instead of one, and the gap to the convolutions alone.

    A step is one update of the discriminator and one of the generator.

    Args:
        resolution: pixels of an image
        channels: 1 or 3
        g_width: channels of the generator's blocks
        d_width: channels of the discriminator's blocks
        batch_size: real images, and fakes, per step
        rounds: how often every variant is timed, after one warm-up round
        mixed_precision: bf16, fp16, or null for none
        output: file to write the numbers to, as JSON; null: none
    """
    setting: dict[str, Any] = {"resolution": resolution, "channels": channels, "g_width": g_width, "d_width": d_width}
    setting |= {"batch_size": batch_size, "rounds": rounds, "mixed_precision": mixed_precision}
    base = GANConfig(
        generator=ResNetGenerator(width=g_width),
        discriminator=ResNetDiscriminator(width=d_width),
        batch_size=batch_size,
        mixup=None,
    )
    make = partial(make_steps, resolution, channels, mixed_precision)
    plain, mixed = make(base), {layer: make(with_mixup(base, "split", layer)) for layer in LAYERS}
    variants: dict[str, Callable[[], object]] = {"plain": partial(step, plain)}
    variants["convolutions"] = partial(each, convolutions(plain))
    variants["3x3 convolutions"] = partial(each, convolutions(make(base, apart=True)))
    variants["three plain"] = partial(each, [variants["plain"]] * len(LAYERS))
    for layer, one in mixed.items():
        variants[f"mixup {layer}"] = partial(step, one)
        variants[f"fused {layer}"] = partial(fused_pass, one)
        variants[f"three {layer}"] = partial(three_passes, one, layer)
    counted = operations(partial(step, plain))
    counts: list[Ratio] = []
    for name in PRESETS:
        ones = [make(with_mixup(base, name, layer)) for layer in LAYERS]
        variants[name] = partial(each, [partial(step, one) for one in ones])
        ratio = sum(operations(partial(step, one)) for one in ones) / len(LAYERS) / counted
        counts.append(Ratio.of_one(f"operations with the preset {name} / plain, counted", ratio))
    times = measure(variants, rounds, plain.accelerator.device)
    names = {(name, "three plain"): f"step with the preset {name}, mean over its layers / plain" for name in PRESETS}
    names |= {(f"mixup {k}", "plain"): f"step with the preset split at layer {k} / plain step" for k in LAYERS}
    names |= {(f"three {k}", f"fused {k}"): f"three discriminator passes / one, mixup at layer {k}" for k in LAYERS}
    names["convolutions", "plain"] = "its convolutions alone / plain step"
    names["3x3 convolutions", "plain"] = "3x3 convolutions around resampling / plain step"
    ratios = [times.ratio(name, *pair) for pair, name in names.items()] + counts
    notes = [f"plain step: {1e3 * statistics.median(times['plain']):.0f} ms"]
    for name, config in (("plain step", base), ("step with the preset paper at h1", with_mixup(base, "paper", 1))):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            notes.append(f"peak memory of the {name}: {process.submit(peak, make, config).result():.0f} MiB")
    title = f"A GAN's step, widths {g_width}/{d_width}{precision_in(mixed_precision)}"
    report(title, setting, plain.accelerator.device, ratios, notes, output)


def precision_in(mixed_precision: str | None) -> str:
    """What a title says about the precision."""
    return {"bf16": ", bfloat16", "fp16": ", float16", None: ""}[mixed_precision]


def with_mixup(base: GANConfig, preset: str, layer: int) -> GANConfig:
    """`base` with a preset's objective, mixed at `layer`, or at the preset's one layer."""
    file = Path(__file__).parents[1] / "configs" / "gan" / "mixup" / f"{preset}.yaml"
    config = cli.config_of(GANConfig, file)
    assert config.mixup
    mixup = replace(config.mixup, layers=(layer if len(config.mixup.layers) > 1 else config.mixup.layers[0],))
    return replace(base, mixup=mixup, loss=config.loss, reuse_fakes=config.reuse_fakes)


def make_steps(
    resolution: int, channels: int, mixed_precision: str | None, config: GANConfig, apart: bool = False
) -> Steps:
    """The steps of `config` on random images; with `apart`, resampling and 3x3 convolutions are not fused."""
    torch.manual_seed(0)
    images = torch.randint(256, (4 * config.batch_size, channels, resolution, resolution), dtype=torch.uint8)
    generator, discriminator = build(config, resolution, channels)
    for module in [*generator.modules(), *discriminator.modules()] if apart else ():
        for name, block in module.named_children():
            if type(block) in APART:
                module.add_module(name, Apart(block))
    return Steps(config, State(config, generator, discriminator, accelerator_of(mixed_precision)), images)


def step(steps: Steps) -> None:
    """One step of each network."""
    if steps.config.reuse_fakes:
        steps.discriminator(0, steps.generator(0)[1])
    else:
        steps.discriminator(0)
        steps.generator(0)


def inputs(steps: Steps) -> tuple[Tensor, Tensor, Plans]:
    """Real rows, equally many others in place of fakes, and the plans of a step."""
    real = steps.real(0, steps.config.batch_size)
    assert steps.config.mixup
    return real, real.flip(0), steps.config.mixup.draw(len(real)).to(real.device)


def fused_pass(steps: Steps) -> None:
    """Real, fake and mixed rows through the discriminator together, and back."""
    real, fake, plans = inputs(steps)
    steps.gan.discriminator(torch.cat([real, fake]), plans).mean().backward()


def three_passes(steps: Steps, layer: int) -> None:
    """Real rows, fake rows, then the rows mixed from their states at `layer`, and back: the official code's form."""
    real, fake, plans = inputs(steps)
    states, logits = [], []
    for images in (real, fake):
        states.append(steps.gan.discriminator(images, stop=layer))
        logits.append(steps.gan.discriminator(states[-1], start=layer))
    mixed, _ = replace(plans, keep=False).mix(layer, torch.cat(states))
    logits.append(steps.gan.discriminator(mixed, start=layer))
    torch.cat(logits).mean().backward()


def up(block: resnet._Up, x: Tensor) -> Tensor:
    """What the generator's block computes, its upsampling and 3x3 convolution one after the other."""
    h = block.conv1(F.interpolate(F.relu(block.norm1(x)), scale_factor=2))
    return block.conv2(F.relu(block.norm2(h))) + F.interpolate(block.shortcut(x), scale_factor=2)


def down(block: resnet._First | resnet._Down, x: Tensor) -> Tensor:
    """What the discriminator's block computes, its 3x3 convolution and pooling one after the other."""
    h = block.conv2(F.relu(block.conv1(x if isinstance(block, resnet._First) else F.relu(x))))
    return F.avg_pool2d(h, 2) + block.shortcut(F.avg_pool2d(x, 2))


APART: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    resnet._Up: up,
    resnet._First: down,
    resnet._Down: down,
}


class Apart(nn.Module):
    """A block without the fused 4x4 convolution, with the block's weights."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """What the block computes, without a class."""
        return APART[type(self.block)](self.block, x)


class _Recorder(TorchDispatchMode):
    """Keeps every convolution, forward and backward, as a call that repeats it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.calls.append(lambda: func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def convolutions(steps: Steps) -> list[Callable[[], object]]:
    """The convolutions of a step, each as a call that repeats it on the same tensors."""
    step(steps)
    with _Recorder() as recorder:
        step(steps)
    return recorder.calls


def peak(make: Callable[[GANConfig], Steps], config: GANConfig) -> float:
    """Peak memory of a step in MiB: the GPU's, or this process's above what it had before making networks."""
    before = peak_of_process()
    steps = make(config)
    for _ in range(2):
        step(steps)
    if steps.accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(steps.accelerator.device) / 2**20
    return peak_of_process() - before


def peak_of_process() -> float:
    """Largest resident memory of this process so far, in MiB (Linux; getrusage would count the parent's too)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10


if __name__ == "__main__":
    cli.run(lambda: cli.call(gan))
