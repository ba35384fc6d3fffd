"""Started by a test on one or two processes, with command lines as JSON and a folder for what it finds.

For each command line it takes one discriminator step, on fakes that do not depend on the number of processes, and then
some steps of both networks.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mmgan.data import load
from mmgan.engine import cli
from mmgan.engine.accelerator import make_accelerator
from mmgan.gan.config import GANConfig
from mmgan.gan.data import inputs_of
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps


def steps_of(args: Sequence[str], accelerator: Accelerator) -> dict[str, Any]:
    """The discriminator's gradients in its first step, and all weights after some more."""
    config = cli.parse(GANConfig, "Test.", args).config
    images, labels = load(config.data)
    inputs = inputs_of(config, labels)
    torch.manual_seed(0)
    gan = State(config, *build(config, 8, 1, len(inputs.names)), accelerator, inputs)
    steps = Steps(config, gan, images, labels)
    fakes = torch.randn(config.batch_size, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    steps.discriminator(3, fakes.chunk(accelerator.num_processes)[accelerator.process_index])
    gradients = {name: p.grad.clone() for name, p in gan.networks["discriminator"].named_parameters()}
    for number in range(3):
        steps.generator(number)
        steps.discriminator(10 + number)
    weights = {name: dict(network.named_parameters()) for name, network in gan.networks.items()}
    return {"gradients": gradients, "weights": weights}


lines, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
accelerator = make_accelerator(folder, None, deterministic=True, tracker=None)
for i, line in enumerate(lines):
    found = steps_of(line, accelerator)
    torch.save(found, folder / f"{i}-{accelerator.num_processes}-{accelerator.process_index}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
