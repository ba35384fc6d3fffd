"""Started by a test on one or two processes.

One discriminator step on fakes that do not depend on how many processes there are, then some of both networks.
"""

import os
from pathlib import Path

import torch

from mmgan.data import load
from mmgan.engine import cli
from mmgan.engine.run import make_accelerator
from mmgan.gan.config import GANConfig
from mmgan.gan.data import inputs_of
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps

config = cli.parse(GANConfig, "Test.").config
accelerator = make_accelerator(Path(os.environ["RESULT"]), None, deterministic=True, tracker=None)
rank, world = accelerator.process_index, accelerator.num_processes
images, labels = load(config.data)
inputs = inputs_of(config, labels)
torch.manual_seed(0)
gan = State(config, *build(config, 8, 1, len(inputs.names)), accelerator, inputs)
steps = Steps(config, gan, images, labels)
fakes = torch.randn(config.batch_size, 1, 8, 8, generator=torch.Generator().manual_seed(1))
steps.discriminator(3, fakes.chunk(world)[rank])
gradients = {name: p.grad for name, p in gan.networks["discriminator"].named_parameters()}
torch.save(gradients, Path(os.environ["RESULT"]) / f"{world}-{rank}.pt")
for number in range(3):
    steps.generator(number)
    steps.discriminator(10 + number)
weights = {name: dict(network.named_parameters()) for name, network in gan.networks.items()}
torch.save(weights, Path(os.environ["RESULT"]) / f"weights-{world}-{rank}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
