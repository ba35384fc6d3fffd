"""`import mmgan` does what the commands do; what it exports is documented by examples that run."""

from __future__ import annotations

import doctest
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

import mmgan
from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.mixup import Plan, rules
from tests.conftest import ROOT, result, run, same

SMALL: dict[str, Any] = {"generator": {"width": 8, "z_dim": 4}, "discriminator": {"width": 8}, "batch_size": 8}
SHORT: dict[str, Any] = {"data": {"name": "digits"}, "steps": 3, "n_dis": 1, "tracker": None, **SMALL}


def train(config: Any, folder: Path, **options: Any) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    mmgan.train(config, folder, **options)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SHORT, tmp_path_factory.mktemp("api") / "run")


class Checker(doctest.OutputChecker):
    """Lets a line of which nothing is expected print how far it is."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


EXPORTED = [*(f"mmgan.{name}" for name in mmgan.__all__), *(f"rules.{name}" for name in rules.__all__)]


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_has_a_docstring_whose_example_runs(name: str, tmp_path: Path, trained: Path) -> None:
    place, _, attribute = name.partition(".")
    thing = getattr({"mmgan": mmgan, "rules": rules}[place], attribute)
    assert thing.__doc__
    names: dict[str, Any] = {"folder": tmp_path / "new" if attribute == "train" else trained, "small": SMALL}
    AcceleratorState._reset_state(reset_partial_state=True)
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs=names):
        found = doctest.DocTestRunner(Checker()).run(test)
        assert not found.failed
        assert found.attempted or isinstance(thing, ModuleType), f"{name} shows no example"


def test_the_names_are_those_that_are_promised() -> None:
    assert set(mmgan.__all__) <= set(dir(mmgan))
    assert all(getattr(mmgan, name) is not None for name in mmgan.__all__)
    assert len(mmgan.__all__) <= 17
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmgan.nothing
    for package in ("mmgan", "classifiers"):
        assert (ROOT / package / "py.typed").exists()


def test_a_dictionary_a_file_an_object_and_the_command_train_the_same_run(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SHORT))
    networks = mmgan.networks.resnet
    config = GANConfig(
        **SHORT
        | {"data": cli.config_of(GANConfig, SHORT).data}
        | {"generator": networks.ResNetGenerator(**SMALL["generator"])}
        | {"discriminator": networks.ResNetDiscriminator(**SMALL["discriminator"])}
    )
    train(tmp_path / "config.yaml", tmp_path / "file")
    train(config, tmp_path / "object")
    done = run("train_gan", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "command"))
    assert done.returncode == 0, done.stderr
    for name in ("file", "object", "command"):
        assert same(result(tmp_path / name), result(trained))
        assert (tmp_path / name / "config.yaml").read_text() == (trained / "config.yaml").read_text()


def test_an_opened_run_is_the_one_that_was_trained(trained: Path) -> None:
    opened = mmgan.load(trained)
    assert (opened.step, opened.weights, opened.shape) == (3, "raw", (1, 8, 8))
    assert opened.config == cli.config_of(GANConfig, SHORT)
    images = opened.sample(5, seed=2)
    assert images.dtype == torch.uint8
    x = images.float() / 127.5 - 1
    assert opened.discriminator(x).shape == (5,)
    assert torch.equal(opened.generator(torch.zeros(2, 4)), opened.generator(torch.zeros(2, 4)))
    assert not opened.generator.training
    assert not opened.discriminator.training
    assert opened.scores == []
    with pytest.raises(ValueError, match="n and batch_size must be positive"):
        opened.sample(0)


@dataclass(frozen=True, kw_only=True)
class Halves(rules.DiscriminatorRule):
    """A rule of a program's own: every mixed row is half of both."""

    def plan(self, left: torch.Tensor, right: torch.Tensor, generator: torch.Generator | None) -> Plan:  # noqa: ARG002
        return Plan(0, left, right, torch.tensor(0.5))


def test_a_program_s_own_class_is_an_object_of_its_configuration(tmp_path: Path) -> None:
    config = replace(cli.config_of(GANConfig, SHORT), mixup=Halves(layers=(1,)))
    run = mmgan.load(train(config, tmp_path / "run"), trust=True)
    assert isinstance(run.config.mixup, Halves)
    assert run.config.mixup.layers == [1]


def test_a_class_that_no_run_could_find_again_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Local(Halves):
        pass

    config = replace(cli.config_of(GANConfig, SHORT), mixup=Local())
    with pytest.raises(UserError, match="is defined inside a function"):
        mmgan.train(config, tmp_path / "run")


def test_what_a_mistake_says(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (SHORT | {"stepz": 3}, "stepz"),
        (SHORT | {"mixup": {"alpha": 3}}, r"mixup.alpha must be in \(0, 1\], not 3"),
        (SHORT | {"loss": {"class_path": "Hinge", "init_args": {"margin": 2}}}, "Hinge has no option margin"),
        (tmp_path / "nowhere.yaml", "there is no file .*nowhere.yaml, and mmgan has no configuration of that name"),
        ([1, 2], "a configuration is a mapping of options to values, not list"),
    ]
    for config, words in cases:
        with pytest.raises(UserError, match=words):
            mmgan.train(config, tmp_path / "run")
    with pytest.raises(UserError, match="is not a run"):
        mmgan.load(tmp_path)
    assert not (tmp_path / "run").exists()


def test_objects_that_a_file_could_not_hold_are_refused_before_training(tmp_path: Path) -> None:
    config = cli.config_of(GANConfig, SHORT)
    wrong: list[dict[str, Any]] = [{"lr_schedule": "foo"}, {"mixed_precision": "no"}, {"steps": 2.5}]
    wrong += [{"loss": mmgan.losses.Hinge}]
    for change in wrong:
        with pytest.raises(UserError):
            mmgan.train(replace(config, **change), tmp_path / "run")
        assert not (tmp_path / "run").exists(), change
    for name in ("lr", "r1_gamma"):
        with pytest.raises(ValueError, match=f"{name} must be .*, not nan"):
            replace(config, **{name: float("nan")})
        with pytest.raises(UserError):
            mmgan.train({**SHORT, name: float("nan")}, tmp_path / "run")
        assert not (tmp_path / "run").exists(), name


def test_an_opened_run_has_checkpoints_and_weights_by_their_names(trained: Path) -> None:
    for options in ({"checkpoint": "newest"}, {"weights": "average"}):
        with pytest.raises(UserError, match="checkpoint is best, last or a step, and weights auto, raw or ema"):
            mmgan.load(trained, **options)  # type: ignore[arg-type]


def test_training_imports_nothing_slow_that_it_can_do_without() -> None:
    slow = {"scipy", "huggingface_hub", "sklearn", "optuna", "torch_fidelity", "torchvision", "matplotlib.pyplot"}
    code = "import sys, mmgan.gan.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not slow & set(done.stdout.split())


def test_mixup_imports_torch_alone() -> None:
    code = "import sys, torch; before = set(sys.modules); import mmgan.mixup; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.split(".")[0] in ("mmgan", "torch")}
    others = set(done.stdout.split()) - ours - set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in others} <= {"numpy"} | set(sys.stdlib_module_names)
    assert {".".join(name.split(".")[:2]) for name in ours if name.startswith("mmgan")} <= {"mmgan", "mmgan.mixup"}
