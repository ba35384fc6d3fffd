"""The passes of a classifier's updates on a GPU."""

from __future__ import annotations

import pytest
import torch

from classifiers import updates as module
from classifiers.config import ClassifierConfig
from classifiers.learnt import network_of
from classifiers.preprocess import fit
from mmgan.data import Images, load
from mmgan.engine import cli
from mmgan.mixup import ClassifierRule
from tests.fake_gpu import GPU, fake_gpu

SSL = ["--ssl.batch_size", "16"]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    "options",
    [
        ["--mixup", "null", "--label_smoothing", "0.1", "--data.pad", "2", "--data.flip", "true", "--l1", "1e-4"],
        ["--mixup.lam_per", "pair", "--data.cutout", "3", "--data.noise", "0.1"],
        ["--mixup", "ClassifierCutMix", "--mixup.layers", "[0,1,2]", "--mixup.detach", "true"],
        ["--ssl", "PiModel", "--data.pad", "1", *SSL],
        ["--ssl", "MeanTeacher", "--data.pad", "1", *SSL],
        ["--ssl", "MixupConsistency", *SSL],
        ["--ssl", "ICT", *SSL],
        ["--ssl", "PseudoLabel", *SSL],
    ],
    ids=" ".join,
)
def test_no_pass_mixes_devices_or_waits_for_the_gpu(options: list[str]) -> None:
    args = ["--output", "", "--config", "configs/cls/digits.yaml", "--network.width", "0.125", "--batch_size", "8"]
    config = cli.parse(ClassifierConfig, "", args=[*args, *options]).config
    images, labels = load(config.data)
    labelled, pool = Images(images[:40], labels[:40]), images if config.ssl else None
    network = network_of(config, 10, fit("standardise", images, images), [1, 8, 8])
    before = ((module, "fingerprint"), (ClassifierRule, "draw"))
    with fake_gpu(*before) as (accelerator, without_values), without_values:
        updates = module.Updates(config, network, labelled, 10, accelerator, pool)
        for number in range(4):
            terms = updates.step(number)
            assert {term.device for term in terms.values() if isinstance(term, torch.Tensor)} == {GPU}
