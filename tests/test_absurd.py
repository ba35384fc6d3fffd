"""Absurd values of every option: the run that they describe could begin, or they are refused by the option's name."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import classifiers.training
import mmgan.gan.train
from classifiers.config import ClassifierConfig
from mmgan.engine import cli
from mmgan.engine.values import members, type_of
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from tests.conftest import ROOT, SMALL, options_of

pytestmark = pytest.mark.slow

VALUES = ["null", "", "x", "-1", "1e400", "1e300", ".nan", "9" * 400, "1000000000000", "[[]]", "{a: 1}", "true"]
GAN = ["--data.name", "digits", *SMALL, "--tracker", "null"]
CLS = ["--data.name", "digits", "--data.labels_per_class", "4", "--network.width", "0.0625", "--batch_size", "16"]
CLS += ["--epochs", "3", "--lr_schedule", "constant", "--tracker", "null"]
NEEDED = {
    "DCGANDiscriminator": ["--mixup.layers", "[0,1]"],
    "WideResNet": ["--network.depth", "10"],
    "Oliver": ["--network.depth", "10"],
    "Fidelity": ["--score.extractor.name", "vgg16"],
    "Torchvision": ["--score.extractor.weights", "resnet.pth"],
}
"""What goes with a class that a section may name."""


def _written(config: type) -> Iterator[tuple[str, list[str]]]:
    """Every option of a configuration as one writes it, and the options that choose the classes it is of."""
    for found in options_of(config):
        chosen, option = [], found
        while named := re.match(r"([\w.]+)\[(\w+)\](.*)", option):
            chosen += [f"--{named[1]}", named[2], *NEEDED.get(named[2], [])]
            option = named[1] + named[3]
        yield option, chosen


def _values(config: type, option: str) -> list[str]:
    """Fewer where any text will do, for then all of them begin."""
    return VALUES[:4] if str in members(type_of(config, option)) else VALUES


GAN_OPTIONS, CLS_OPTIONS = list(_written(GANConfig)), list(_written(ClassifierConfig))


def _refused_by_name(option: str, value: str, begin: Callable[[], object]) -> None:
    try:
        begin()
    except UserError as error:
        message = str(error)
        assert option in message, f"--{option} {value[:20]}: {message}"
        assert "\n" not in message
        assert len(message) < 600


@pytest.mark.parametrize(("option", "chosen"), GAN_OPTIONS)
def test_an_option_of_a_gan(option: str, chosen: list[str]) -> None:
    chosen = [*chosen, *(["--lr_schedule", "constant"] if option.startswith("burn_in") else [])]
    for value in _values(GANConfig, option):

        def begin(given: str = f"--{option}={value}") -> None:
            mmgan.gan.train.check(cli.parse(GANConfig, "", ["--output", "out", *GAN, *chosen, given]).config)

        _refused_by_name(option, value, begin)


@pytest.mark.parametrize(("option", "chosen"), CLS_OPTIONS)
def test_an_option_of_a_classifier(option: str, chosen: list[str]) -> None:
    for value in _values(ClassifierConfig, option):

        def begin(given: str = f"--{option}={value}") -> None:
            classifiers.training.check(
                cli.parse(ClassifierConfig, "", ["--output", "out", *CLS, *chosen, given]).config
            )

        _refused_by_name(option, value, begin)


@pytest.mark.parametrize("name", ["attack_cls", "evaluate_cls", "push", "sample_gan", "score"])
def test_an_option_of_a_script_that_reads_a_run(name: str, tmp_path: Path) -> None:
    """It is refused by its name, or the run, which is not there, is."""
    scripts = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))
    script = scripts["score_and_print" if name == "score" else name.partition("_")[0]]
    given = [str(tmp_path / "nowhere"), *(["user/digits"] if name == "push" else [])]
    for option in script.__annotations__.keys() - {"run", "repo", "fake", "options", "return"}:
        for value in VALUES:
            with pytest.raises(UserError) as refused:
                cli.call(script, args=[*given, f"--{option}={value}"])
            assert re.search(rf"{option}|nowhere", str(refused.value)), f"--{option} {value[:20]}: {refused.value}"
