"""Started by a test on one or two processes.

One discriminator update on fakes that do not depend on how many processes there are, then some of both networks.
"""

import os
from pathlib import Path

import torch

from mmgan.data import load
from mmgan.engine import cli
from mmgan.engine.run import make_accelerator
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import build
from mmgan.gan.updates import Updates
from mmgan.mixup import DiscriminatorMixup

config = cli.parse(GANConfig, "Test.", {"mixup": DiscriminatorMixup}).config
accelerator = make_accelerator(Path(os.environ["RESULT"]), None, deterministic=True, tracker=None)
rank, world = accelerator.process_index, accelerator.num_processes
images = load(config.data).images
torch.manual_seed(0)
updates = Updates(config, *build(config, 8, 1), images, accelerator)
fakes = torch.randn(config.batch_size, 1, 8, 8, generator=torch.Generator().manual_seed(1))
updates.discriminator(3, fakes.chunk(world)[rank])
gradients = {name: p.grad for name, p in updates.networks["discriminator"].named_parameters()}
torch.save(gradients, Path(os.environ["RESULT"]) / f"{world}-{rank}.pt")
for number in range(3):
    updates.generator(number)
    updates.discriminator(10 + number)
weights = {name: dict(network.named_parameters()) for name, network in updates.networks.items()}
torch.save(weights, Path(os.environ["RESULT"]) / f"weights-{world}-{rank}.pt")
accelerator.end_training()
