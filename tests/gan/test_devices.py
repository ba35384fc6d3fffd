"""The passes of a GAN's steps on a GPU."""

from __future__ import annotations

import pytest
import torch

from mmgan.engine import cli
from mmgan.gan.augment import Augmentation, DiffAugment
from mmgan.gan.config import GANConfig
from mmgan.gan.data import inputs_of, training_images
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.mixup import DiscriminatorRule
from tests.fake_gpu import GPU, fake_gpu

DRAWN: tuple[tuple[type, str], ...] = ((DiscriminatorRule, "draw"), (DiscriminatorRule, "draw_for_generator"))
DRAWN += ((DiffAugment, "draw"), (Augmentation, "share"))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by AveragedModel, when it copies
@pytest.mark.parametrize(
    "options",
    [
        ["--mixup", "null"],
        ["--config", "configs/gan/mixup/paper.yaml"],
        ["--config", "configs/gan/mixup/split.yaml"],
        ["--config", "configs/gan/mixup/official-code.yaml"],
        ["--mixup", "DiscriminatorCutMix", "--mixup.layers", "[0,1,2]"],
        ["--loss", "Hinge", "--ema", "0.9", "--data.flip", "true"],
        ["--loss", "Relativistic"],
        ["--augment", "DiffAugment"],
        ["--conditional", "uniform"],
        ["--conditional", "matched", "--augment", "DiffAugment"],
        ["--reuse_fakes", "true", "--loss", "LeastSquares"],
    ],
    ids=" ".join,
)
def test_no_pass_mixes_devices_or_waits_for_the_gpu(options: list[str]) -> None:
    args = ["--output", "", "--config", "configs/gan/digits.yaml", *options]
    config = cli.parse(GANConfig, "", args=args).config
    images, labels = training_images(config)
    inputs = inputs_of(config, labels)
    networks = build(config, 8, 1, len(inputs.names))
    with fake_gpu(*DRAWN) as (accelerator, without_values), without_values:
        steps = Steps(config, State(config, *networks, accelerator, inputs), images, labels if inputs.names else None)
        for number in range(1, 5):  # several layers and kinds of pairs
            terms = steps.both(number)
            assert {term.device for term in terms.values()} == {GPU}


def test_it_would_fail_for_a_tensor_elsewhere_and_for_a_value_that_is_asked_for() -> None:
    with fake_gpu() as (_, without_values), without_values:
        x = torch.ones(2, device=GPU)
        with pytest.raises(Exception, match="at least two devices"):
            x + torch.ones(2)
        with pytest.raises(Exception, match="local_scalar"):
            x.sum().item()
