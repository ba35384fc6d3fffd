"""Time scoring one folder of PNGs against another, compared with Inception's passes alone and with torch-fidelity.

python benchmarks/folders.py
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import os
import tempfile
from pathlib import Path

import torch
from timing import measure, report
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.transforms.v2.functional import to_pil_image

import mmgan
from mmgan.engine import cli
from mmgan.engine.accelerator import accelerator_of
from mmgan.scoring import Inception


class Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity has no types
    """torch-fidelity's Inception, which otherwise cannot be built without a file of its weights."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Leave the weights as they are."""


def folders(
    resolution: int = 32, num_samples: int = 64, batch_size: int = 32, rounds: int = 5, output: Path | None = None
) -> None:
    """Print the throughput of FID and IS between two folders, relative to the network's passes and to torch-fidelity.

    Both folders have the same number of images, which are decoded anew in every round. Inception's weights are random,
    which takes just as long.

    Args:
        resolution: pixels of an image
        num_samples: images in each folder
        batch_size: images per batch
        rounds: how often every variant is timed, after one warm-up round
        output: file to write the numbers to, as JSON; null: none
    """
    torch.manual_seed(0)
    device = accelerator_of().device
    images = torch.randint(256, (num_samples, 3, resolution, resolution), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as root:
        fake, real = written(images, Path(root) / "fake"), written(images.flip(-1), Path(root) / "real")
        weights = random_weights(Path(root) / "inception.pth")
        by = Inception(weights).build()
        by.module.to(device)

        def passes() -> None:
            for part in (*images.split(batch_size), *images.split(batch_size)):
                by(part.to(device))

        def ours() -> None:
            with tempfile.TemporaryDirectory() as cache:
                os.environ["XDG_CACHE_HOME"] = cache
                mmgan.score(fake, real, extractor=Inception(weights), floor=False, batch_size=batch_size)

        def theirs() -> None:
            calculate_metrics(
                input1=fake,
                input2=real,
                feature_extractor_weights_path=weights,
                batch_size=batch_size,
                cache=False,
                cuda=device.type == "cuda",
                verbose=False,
                **{"isc": True, "fid": True},
            )

        times = measure({"passes": passes, "ours": ours, "theirs": theirs}, rounds, device)
    ratios = [times.ratio("images a second, two folders of PNGs / Inception's passes alone", "passes", "ours")]
    ratios.append(times.ratio("images a second, two folders of PNGs / torch-fidelity's", "theirs", "ours"))
    setting = {"extractor": by.name, "resolution": resolution, "num_samples": num_samples}
    report("Scoring folders", setting | {"batch_size": batch_size, "rounds": rounds}, device, ratios, [], output)


def written(images: Tensor, folder: Path) -> str:
    """A folder of PNGs."""
    folder.mkdir()
    for i, image in enumerate(images):
        to_pil_image(image).save(folder / f"{i:06}.png")
    return str(folder)


def random_weights(file: Path) -> str:
    """A file of Inception weights, drawn at random."""
    torch.save({}, file)
    network = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    torch.save(network.state_dict(), file)
    return str(file)


if __name__ == "__main__":
    cli.run(lambda: cli.call(folders))
