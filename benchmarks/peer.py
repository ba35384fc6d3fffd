"""Time a GAN's step against the step of mimicry, the best-known public PyTorch SNGAN, from a checkout of it.

git clone https://github.com/kwotsin/mimicry && python benchmarks/peer.py mimicry
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from gan import LAYERS, make_steps, precision_in, step, with_mixup
from timing import measure, report

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator

PRESETS = ("split", "paper")


def peer(
    checkout: Path,
    g_width: int = 64,
    d_width: int = 32,
    batch_size: int = 64,
    rounds: int = 10,
    mixed_precision: Literal["bf16", "fp16"] | None = None,
    output: Path | None = None,
) -> None:
    """Print the speed of a step relative to the peer's, on colour images of 32x32.

    A step is one update of the discriminator and one of the generator, with the same networks, batch, loss and
    optimiser. The peer and our step each have a process, and take turns.

    Args:
        checkout: folder of the peer's repository
        g_width: channels of the generator's blocks
        d_width: channels of the discriminator's blocks
        batch_size: real images, and fakes, per step
        rounds: how often every variant is timed, after one warm-up round
        mixed_precision: bf16 or fp16 for our step; the peer's is always in single precision
        output: file to write the numbers to, as JSON; null: none
    """
    if not (checkout / "torch_mimicry").is_dir():
        raise UserError(f"checkout: {checkout} holds no folder torch_mimicry")
    base = GANConfig(
        generator=ResNetGenerator(width=g_width),
        discriminator=ResNetDiscriminator(width=d_width),
        batch_size=batch_size,
        mixup=None,
    )
    variants: dict[str, Callable[[], object]] = {}
    make = partial(make_steps, 32, 3, mixed_precision)
    variants["the plain step"] = partial(step, make(base))
    for name in PRESETS:
        for layer in LAYERS:
            one = partial(step, make(with_mixup(base, name, layer)))
            variants[f"the step with the preset {name} at layer {layer}"] = one
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(begin, str(checkout), g_width, d_width, batch_size).result()
        times = measure(variants | {"peer": lambda: process.submit(one_step).result()}, rounds, device)
    ratios = [times.ratio(f"the peer's step / {name}", "peer", name) for name in variants]
    setting: dict[str, Any] = {"g_width": g_width, "d_width": d_width, "batch_size": batch_size, "rounds": rounds}
    setting["mixed_precision"] = mixed_precision
    notes = [f"the peer's step: {1e3 * statistics.median(times['peer']):.0f} ms"]
    title = f"A step against mimicry's, widths {g_width}/{d_width}{precision_in(mixed_precision)}"
    report(title, setting, device, ratios, notes, output)


_steps: list[Callable[[], None]] = []


def begin(checkout: str, g_width: int, d_width: int, batch_size: int) -> None:
    """Make the peer's networks in this process, from the files that define them; the others need outdated libraries."""
    package = ModuleType("torch_mimicry")
    package.__path__ = [f"{checkout}/torch_mimicry"]
    sys.modules["torch_mimicry"] = package
    nets = import_module("torch_mimicry.nets.sngan.sngan_32")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    generator = nets.SNGANGenerator32(ngf=g_width, loss_type="ns").to(device)
    discriminator = nets.SNGANDiscriminator32(ndf=d_width, loss_type="ns").to(device)
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.0, 0.9)) for net in (generator, discriminator))
    images = torch.rand(batch_size, 3, 32, 32, device=device) * 2 - 1

    class Log:
        """Keeps nothing."""

        def add_metric(self, *_: Any, **__: Any) -> None:
            """Nothing."""

    def one() -> None:
        discriminator.train_step((images, None), generator, adam_d, Log(), device)
        generator.train_step((images, None), discriminator, adam_g, Log(), device)

    _steps.append(one)


def one_step() -> None:
    """One step of the peer's."""
    _steps[0]()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    cli.run(lambda: cli.call(peer))
