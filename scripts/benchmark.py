"""Time what this project does, as ratios inside one run.

    python scripts/benchmark.py gan --resolution 32 --g_width 256 --d_width 128 --batch_size 16
    python scripts/benchmark.py classifier --width 0.125
    python scripts/benchmark.py scoring

Every round times all variants in turn, so that a drift of the machine's speed falls on all of them; a ratio is the
median of the rounds' ratios.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import classifiers.load
import classifiers.updates
from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.networks import build as build_classifier
from classifiers.networks import moments
from classifiers.networks.preactresnet import PreActResNet
from mmgan.data import Images
from mmgan.engine import cli
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import resnet
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.mixup import ClassifierMixup, Plans
from mmgan.scoring import Extractor, Inception
from mmgan.scoring.scorer import extract

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
) -> None:
    """Print the cost of mixup, of three passes instead of one, and the distance to the convolutions alone.

    A step is one update of the discriminator and one of the generator.

    Args:
        resolution: pixels of an image
        channels: 1 or 3
        g_width: channels of the generator's blocks
        d_width: channels of the discriminator's blocks
        batch_size: real images, and fakes, of a step
        rounds: how often every variant is timed, after one round that does not count
        mixed_precision: bf16, fp16, or null for none
    """
    base = GANConfig(
        generator=ResNetGenerator(width=g_width),
        discriminator=ResNetDiscriminator(width=d_width),
        batch_size=batch_size,
        mixup=None,
    )
    make = partial(make_steps, resolution, channels, mixed_precision)
    plain, mixed = make(base), {layer: make(with_mixup(base, "split", layer)) for layer in LAYERS}
    presets = {name: [make(with_mixup(base, name, layer)) for layer in LAYERS] for name in PRESETS}
    device = plain.accelerator.device
    convolutions = record(lambda: step(plain))
    with two_steps():
        convolutions3 = record(lambda: step(plain))

    variants: dict[str, Callable[[], object]] = {"plain": lambda: step(plain)}
    variants["convolutions"] = lambda: [call() for call in convolutions]
    variants["3x3 convolutions"] = lambda: [call() for call in convolutions3]
    variants["three plain"] = partial(each, [plain] * len(LAYERS))
    for layer, one in mixed.items():
        variants[f"mixup {layer}"] = partial(step, one)
        variants[f"fused {layer}"] = partial(fused_pass, one)
        variants[f"three {layer}"] = partial(three_passes, one, layer)
    for name, ones in presets.items():
        variants[name] = partial(each, ones)
    times = measure(variants, rounds, device)
    ratio = partial(ratio_of, times)
    print(f"{channels}x{resolution}x{resolution}, widths {g_width}/{d_width}, batch {batch_size}, {rounds} rounds,")
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {mixed_precision=}")
    print(f"plain step: {1e3 * statistics.median(times['plain']):.0f} ms\n")
    print("ratio, median (range over rounds)")
    for name in presets:
        print(f"step with the preset {name}, mean over its layers / plain: {ratio(name, 'three plain')}")
    for layer in mixed:
        print(f"step with the preset split at layer {layer} / plain step: {ratio(f'mixup {layer}', 'plain')}")
    for layer in mixed:
        print(f"three discriminator passes / one, mixup at layer {layer}: {ratio(f'three {layer}', f'fused {layer}')}")
    print(f"its convolutions alone / plain step:              {ratio('convolutions', 'plain')}")
    print(f"3x3 convolutions around resampling / plain step:  {ratio('3x3 convolutions', 'plain')}")
    alone = get_context("spawn")
    for name, config in (("plain step", base), ("step with the preset paper at h1", with_mixup(base, "paper", 1))):
        with ProcessPoolExecutor(1, mp_context=alone) as process:
            print(f"peak memory of the {name}: {process.submit(peak, make, config).result():.0f} MiB")


def with_mixup(base: GANConfig, preset: str, layer: int) -> GANConfig:
    """`base` with a preset's objective, mixed at `layer`, or at the preset's one layer."""
    file = Path(__file__).parents[1] / "configs" / "gan" / "mixup" / f"{preset}.yaml"
    config = cli.config_of(GANConfig, file)
    assert config.mixup
    mixup = replace(config.mixup, layers=(layer if len(config.mixup.layers) > 1 else config.mixup.layers[0],))
    return replace(base, mixup=mixup, loss=config.loss, reuse_fakes=config.reuse_fakes)


def classifier(
    resolution: int = 28, channels: int = 1, width: float = 0.125, batch_size: int = 100, rounds: int = 10
) -> None:
    """Print images a second against a plain loop over a DataLoader with torchvision's transforms, and what mixup costs.

    Args:
        resolution: pixels of an image
        channels: 1 or 3
        width: factor on the channels of PreActResNet18
        batch_size: images of a step
        rounds: how often every variant is timed, for 10 steps, after one round that does not count
    """
    torch.manual_seed(0)
    pixels = torch.randint(256, (20 * batch_size, channels, resolution, resolution), dtype=torch.uint8)
    images = Images(pixels, torch.randint(10, (len(pixels),)))
    layers = (0, 1, 2, 3)
    ours = {"none": classifier_updates(images, width, batch_size, None)}
    ours |= {str(k): classifier_updates(images, width, batch_size, ClassifierMixup(layers=(k,))) for k in layers}
    variants: dict[str, Callable[[], object]] = {name: partial(steps, one) for name, one in ours.items()}
    variants["DataLoader"] = plain_loop(images, ours["none"].config, ours["none"].accelerator.device)
    device = ours["none"].accelerator.device
    times = measure(variants, rounds, device)
    speed = 10 * batch_size / statistics.median(times["none"])
    print(f"PreActResNet18, width {width}, {channels}x{resolution}x{resolution}, batch {batch_size}, {rounds} rounds,")
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}: {speed:.0f} images a second\n")
    print("ratio, median (range over rounds)")
    print(f"images a second here / with a DataLoader:  {ratio_of(times, 'DataLoader', 'none')}")
    for layer in layers:
        print(f"step with mixup at layer {layer} / without:       {ratio_of(times, str(layer), 'none')}")


def classifier_updates(
    images: Images, width: float, batch_size: int, mixup: ClassifierMixup | None
) -> classifiers.updates.Updates:
    """Network and optimiser on `images`."""
    config = ClassifierConfig(
        network=PreActResNet(width=width), mixup=mixup, batch_size=batch_size, data=ClassifierData(pad=2)
    )
    torch.manual_seed(0)
    network = build_classifier(config.network, 10, *moments(images.images))
    return classifiers.updates.Updates(config, network, images, 10, Accelerator())


def steps(updates: classifiers.updates.Updates) -> None:
    """Ten updates."""
    for number in range(10):
        updates.step(number)


def plain_loop(images: Images, config: ClassifierConfig, device: torch.device) -> Callable[[], None]:
    """Ten steps as most repositories write them: torchvision's transforms an image, a DataLoader, the same network."""
    mean, std = moments(images.images)
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(images.images.shape[-1], padding=config.data.pad),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    rows = [(transform, image, label) for image, label in zip(images.images, images.labels.tolist(), strict=True)]
    workers = 0 if device.type == "cpu" else 4
    loader = DataLoader(_Transformed(rows), config.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    network = build_classifier(config.network, 10, torch.zeros_like(mean), torch.ones_like(std)).to(device)
    sgd = torch.optim.SGD(network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay)

    def ten_steps() -> None:
        for _, (x, y) in zip(range(10), loader, strict=False):
            loss = F.cross_entropy(network(x.to(device)), y.to(device))
            sgd.zero_grad()
            loss.backward()
            sgd.step()

    return ten_steps


class _Transformed(Dataset[tuple[Tensor, int]]):
    """Images that are transformed one by one, as they are asked for."""

    def __init__(self, rows: list[tuple[Callable[[Tensor], Tensor], Tensor, int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        transform, image, label = self.rows[i]
        return transform(image), label


def scoring(
    resolution: int = 32, num_samples: int = 512, batch_size: int = 64, rounds: int = 5, inception_weights: bool = False
) -> None:
    """Print the throughput of scoring, FID and IS, over that of the extractor's forward pass alone.

    Args:
        resolution: pixels of an image
        num_samples: images scored
        batch_size: images at once
        rounds: how often every variant is timed, after one round that does not count
        inception_weights: with torch-fidelity's Inception, whose weights are fetched; else with a PreActResNet18
    """
    torch.manual_seed(0)
    accelerator = Accelerator()
    images = torch.randint(256, (num_samples, 3, resolution, resolution), dtype=torch.uint8)
    network = build_classifier(PreActResNet(width=0.5), 10, *moments(images)).to(accelerator.device)
    by = Extractor("classifier", classifiers.load.FeatureNetwork(network), "none")
    by = Inception().build() if inception_weights else by
    by.module.to(accelerator.device)

    def forward() -> None:
        for part in images.split(batch_size):
            by(part.to(accelerator.device))

    variants: dict[str, Callable[[], object]] = {"forward": forward}

    def scored() -> None:
        extract(by, lambda a, b: images[a:b], num_samples, ("fid", "is"), accelerator, batch_size)

    variants["scoring"] = scored
    times = measure(variants, rounds, accelerator.device)
    print(f"{by.name}, 3x{resolution}x{resolution}, {num_samples} images, batch {batch_size}, {rounds} rounds,")
    print(f"{accelerator.device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("ratio, median (range over rounds)")
    print(f"images a second, features and moments / forward pass alone: {ratio_of(times, 'forward', 'scoring')}")


def ratio_of(times: dict[str, list[float]], a: str, b: str) -> str:
    """The time of `a` over that of `b`, as text."""
    ratios = [x / y for x, y in zip(times[a], times[b], strict=True)]
    return f"{statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"


def make_steps(resolution: int, channels: int, mixed_precision: str | None, config: GANConfig) -> Steps:
    """The steps of `config` on random images."""
    torch.manual_seed(0)
    images = torch.randint(256, (4 * config.batch_size, channels, resolution, resolution), dtype=torch.uint8)
    accelerator = Accelerator(mixed_precision=mixed_precision or "no")
    return Steps(config, State(config, *build(config, resolution, channels), accelerator), images)


def step(steps: Steps) -> None:
    """One step of each network."""
    if steps.config.reuse_fakes:
        steps.discriminator(0, steps.generator(0)[1])
    else:
        steps.discriminator(0)
        steps.generator(0)


def each(several: list[Steps]) -> None:
    """One step of each network of each."""
    for steps in several:
        step(steps)


def inputs(steps: Steps) -> tuple[Tensor, Tensor, Plans]:
    """Real rows, as many others in place of fakes, and the plans of a step."""
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


@contextmanager
def two_steps() -> Any:
    """Resampling and 3x3 convolution in two steps instead of the fused 4x4 one."""

    def conv_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)

    def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2), weight, bias, padding=1)

    with mock.patch.multiple(resnet, conv_pool=conv_pool, upsample_conv=upsample_conv):
        yield


class _Recorder(TorchDispatchMode):
    """Keeps every convolution, forward and backward, as a call that repeats it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.calls.append(lambda: func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def record(work: Callable[[], object]) -> list[Callable[[], object]]:
    """The convolutions `work` does, each as a call that repeats it on the same tensors."""
    work()
    with _Recorder() as recorder:
        work()
    return recorder.calls


def measure(variants: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every variant in every round; the first round is dropped."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, work in variants.items():
            synchronise(device)
            start = time.perf_counter()
            work()
            synchronise(device)
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(make: Callable[[GANConfig], Steps], config: GANConfig) -> float:
    """MiB a step takes at most: of the GPU's memory, or of this process's above what it had before making networks."""
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
    cli.run(lambda: cli.call(gan, classifier, scoring))
