"""What is measured of a discriminator on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmgan.data import to_network
from mmgan.gan.diagnose import LAMS, diagnose
from mmgan.gan.networks.resnet import ResNetDiscriminator


def test_diagnostics_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    network = ResNetDiscriminator(width=8).build(16, 1)
    real, fake, held_out = (to_network(torch.randint(256, (6, 1, 16, 16), dtype=torch.uint8)) for _ in range(3))
    network(real)  # one power iteration, in training
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scalars, curves = diagnose(network, real, fake, held_out)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    network.eval()
    with torch.no_grad():
        assert scalars["d/gap"] == pytest.approx(float(network(real).mean() - network(held_out).mean()), abs=1e-6)
        for layer in (0, 1, 2):
            a, b = network(real, stop=layer), network(fake, stop=layer)
            expected = [float(network(lam * a + (1 - lam) * b, start=layer).mean()) for lam in LAMS]
            assert curves[f"path/{layer}"] == pytest.approx(expected, abs=1e-5)
        conv = network.get_submodule("stages.1.conv1")
        largest = np.linalg.svd(conv.weight.flatten(1).numpy(), compute_uv=False)[0]
        assert scalars["spectral_norm/1.conv1"] == pytest.approx(largest, rel=1e-5)
        assert len([name for name in scalars if name.startswith("spectral_norm/")]) == 8


def test_a_network_nobody_can_mix_has_no_paths() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    x = F.pad(torch.zeros(3, 1, 1, 1), (1, 0, 1, 0))
    scalars, curves = diagnose(network, x, x, None)
    assert curves == {}
    assert set(scalars) == {"d/real", "d/fake", "spectral_norm/1"}
