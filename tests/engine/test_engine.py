"""What every run needs: randomness, checkpoints, the run folder, the command line."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmgan.engine import checkpoint, cli
from mmgan.engine.accelerator import accelerator_of
from mmgan.engine.log import Log
from mmgan.engine.modes import evaluating
from mmgan.engine.randomness import Draws, batch_rows, stream
from mmgan.engine.run import Run
from mmgan.engine.stop import Stop
from mmgan.errors import UserError

CPU = torch.device("cpu")


def test_a_stream_is_a_function_of_seed_purpose_and_number() -> None:
    keys = [(seed, purpose, number) for seed in (0, 1) for purpose in ("a", "b", "1/a") for number in (0, 1, 11)]
    draws = {key: float(torch.rand((), generator=stream(*key))) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert draws == {key: float(torch.rand((), generator=stream(*key))) for key in reversed(keys)}


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_batches_go_through_the_data_once_an_epoch(batch_size: int, size: int, seed: int) -> None:
    rows = torch.cat([batch_rows(seed, number, batch_size, size) for number in range(3 * size)]).tolist()
    for epoch in range(3 * batch_size):
        assert Counter(rows[epoch * size : (epoch + 1) * size]) == Counter(range(size))


@given(st.sampled_from([1, 2, 3]), st.integers(1, 4))
def test_shares_of_the_draws_make_the_global_batch(world: int, each: int) -> None:
    size = world * each
    one, parts = Draws(3, 0, 1, CPU), [Draws(3, rank, world, CPU) for rank in range(world)]
    assert torch.equal(torch.cat([p.normal("z", 5, size, 2) for p in parts]), one.normal("z", 5, size, 2))
    assert torch.equal(torch.cat([p.uniform("u", 5, size) for p in parts]), one.uniform("u", 5, size))
    assert torch.equal(torch.cat([p.rows(7, size, 50) for p in parts]), one.rows(7, size, 50))


# Checkpoints


def saved(folder: Path, *steps: int, keep: int = 3) -> list[Path]:
    net = nn.Linear(2, 3)
    return [
        checkpoint.save(folder, step, {"net": net}, {"value": torch.tensor(step), "step": step}, keep) for step in steps
    ]


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters())
    net(torch.randn(1, 2, 5, 5)).sum().backward()
    adam.step()
    checkpoint.save(tmp_path, 1_234_567, {"net": net}, {"adam": adam.state_dict()}, keep=1)
    back = checkpoint.latest(tmp_path)
    assert back
    assert back.step == 1_234_567
    other = nn.Conv2d(2, 3, 3)
    back.restore("net", other)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    state = back.state["adam"]["state"][0]
    assert torch.equal(state["exp_avg"], adam.state[net.weight]["exp_avg"])


def test_only_the_last_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    saved(tmp_path, 5, 900_000, 1_000_000, 10_000_000, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-10000000"]
    back = checkpoint.latest(tmp_path)
    assert back
    assert back.step == 10_000_000


def tear(path: Path, how: str) -> None:
    """Damage a checkpoint as a crash, a full disk or a stray hand would."""
    weights = path / "net.safetensors"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif how == "flipped bit":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif how == "missing file":
        (path / "state.pt").unlink()
    elif how == "empty sums":
        (path / "checksums.json").write_text("")
    elif how == "no sums":
        (path / "checksums.json").unlink()
    elif how == "other format":
        (path / "checksums.json").write_text(json.dumps({"format": 99, "step": 2, "sha256": {}}))
    elif how == "sums of something else":
        (path / "checksums.json").write_text("[]")


@pytest.mark.parametrize(
    "how",
    ["cut", "flipped bit", "missing file", "empty sums", "no sums", "other format", "sums of something else"],
)
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, how: str) -> None:
    tear(saved(tmp_path, 1, 2)[1], how)
    with pytest.warns(UserWarning, match="skipping .*step-000002"):
        back = checkpoint.latest(tmp_path)
    assert back
    assert (back.step, int(back.state["value"])) == (1, 1)


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """Even one with a right checksum."""
    path = saved(tmp_path, 1)[0]
    marker = tmp_path / "was run"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(marker),)  # type: ignore[return-value]

    torch.save({"value": Bomb()}, path / "state.pt")
    sums = json.loads((path / "checksums.json").read_text())
    sums["sha256"]["state.pt"] = hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.warns(UserWarning, match="skipping"):
        assert checkpoint.latest(tmp_path) is None
    assert not marker.exists()


def test_another_network_s_checkpoint_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    back = checkpoint.latest(tmp_path)
    assert back
    with pytest.raises(UserError, match="holds a different net from the one this configuration builds"):
        back.restore("net", nn.Linear(2, 4))
    with pytest.raises(UserError, match="holds a different generator"):
        back.restore("generator", nn.Linear(2, 3))


# The log


def test_a_resumed_log_writes_the_rows_of_an_unbroken_one(tmp_path: Path) -> None:
    def rows(folder: Path, stops: list[int]) -> list[dict[str, float]]:
        accelerator, start = Accelerator(cpu=True), 0
        state: dict[str, Any] = {}
        for stop in stops:
            with Run(folder, "a: 1\n", accelerator) as run, Log(run, start, 10, 4, state) as log:
                for step in range(start + 1, stop + 1):
                    log.add(step, {"x": torch.tensor(float(step))})
                state, start = log.state(stop), stop
                if stop == 6:
                    log.add(7, {"x": torch.tensor(-1.0)})  # work after the checkpoint, lost with a kill
                    log.add(8, {"x": torch.tensor(-1.0)})
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    broken, whole = rows(tmp_path / "a", [6, 10]), rows(tmp_path / "b", [10])
    assert [(row["step"], row["x"]) for row in broken] == [(4, 2.5), (8, 6.5), (10, 9.5)]
    assert [(row["step"], row["x"]) for row in whole] == [(row["step"], row["x"]) for row in broken]


def test_a_scalar_that_is_not_finite_names_step_and_term(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    run = Run(tmp_path / "run", "a: 1\n", accelerator)
    with run, Log(run, 0, 10, 5, {}) as log:
        for step in range(1, 5):
            log.add(step, {"good": torch.tensor(1.0), "bad": torch.tensor(float("nan") if step > 2 else 0.0)})
        with pytest.raises(UserError, match="bad became nan at step 3"):
            log.add(5, {"good": torch.tensor(1.0), "bad": torch.tensor(0.0)})


# The run folder


def test_a_changed_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    for root in "ab":
        with Run(tmp_path, f"data: {{root: {root}}}\nmixup: {{alpha: 0.5}}\nn_dis: 1\n", accelerator):
            pass
    with pytest.raises(UserError, match=r"holds a run with mixup.alpha 0.5, not 0.2; n_dis 1, not 2; choose another"):
        Run(tmp_path, "data: {root: a}\nmixup: {alpha: 0.2}\nn_dis: 2\n", accelerator)
    with pytest.raises(UserError, match=r"with mixup {'alpha': 0.5}, not None; choose"):
        Run(tmp_path, "data: {root: a}\nmixup: null\nn_dis: 1\n", accelerator)


def test_a_folder_in_use_or_of_something_else_is_refused(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with pytest.raises(UserError, match="neither empty nor a run"):
        Run(tmp_path / "thesis", "a: 1\n", accelerator)
    with Run(tmp_path / "run", "a: 1\n", accelerator), pytest.raises(UserError, match="another process"):
        Run(tmp_path / "run", "a: 1\n", accelerator)
    with pytest.raises(UserError, match=r"cannot write to .*Not a directory"):
        Run(tmp_path / "thesis" / "chapter.txt" / "run", "a: 1\n", accelerator)


# The command line


@dataclass(frozen=True)
class Part:
    """Part."""

    a: int = 1
    """The a."""
    b: str = "x"
    """The b."""


@dataclass(frozen=True)
class Whole:
    """Whole."""

    part: Part | None = field(default_factory=Part)
    """The part."""
    c: float = 0.5
    """The c."""

    def __post_init__(self) -> None:
        if self.c < 0:
            raise ValueError("c must be 0 or more")


def parse(*args: str) -> cli.Arguments[Whole]:
    return cli.parse(Whole, "Test.", ["--output", "out", *args])


def test_files_merge_from_left_to_right_and_options_go_over_them(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text("part: {a: 2, b: x}\nc: 1\n")
    (tmp_path / "2.yaml").write_text("part: {b: y}\n")
    files = ["--config", str(tmp_path / "1.yaml"), "--config", str(tmp_path / "2.yaml")]
    assert parse(*files, "--c", "3").config == Whole(Part(2, "y"), 3)
    assert parse(*files, "--part", "null").config == Whole(None, 1)
    assert parse("--part.a", "5").config == Whole(Part(5))


@pytest.mark.parametrize("options", [["--part.b", "no"], ["--part", "null"], ["--c", "1e-7"]])
def test_the_saved_configuration_reads_back_as_it_was(tmp_path: Path, options: list[str]) -> None:
    config = parse(*options).config
    text = cli.to_yaml(config)
    (tmp_path / "config.yaml").write_text(text)
    assert cli.config_of(Whole, tmp_path / "config.yaml") == config
    assert ("# The c." in text) == (options[-1] != "no")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--d", "1"], "unrecognized arguments: --d 1"),
        (["--part.z", "1"], "z"),
        (["--c", "x"], "c must be a number, not x"),
        (["--c", "-1"], "c must be 0 or more"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_errors_are_one_line(options: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "NoneType" not in str(caught.value)


def test_help_lists_the_options_of_optional_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "--part.a" in text
    assert "The a." in text


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_options_go_over_a_file_wherever_they_stand(tmp_path: Path, form: list[str]) -> None:
    (tmp_path / "a.yaml").write_text("part: {a: 2, b: x}\nc: 1\n")
    file = [part.format(tmp_path / "a.yaml") for part in form]
    assert parse("--c", "3", "--part.a", "7", *file).config == Whole(Part(7, "x"), 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c:\n", "c must be a number, not null: a key without a value"),
        ("part: {a: }\n", "part.a must be a whole number, not null"),
        ("c: .nan\n", "c must be finite"),
        ("c: 1e400\n", "c must be finite"),
        ("part: {a: 1, a: 2}\n", "a occurs twice; remove one of them in line 1"),
        ("c: 1\npart: {a: 1}\nc: 2\n", "c occurs twice; remove one of them in line 3"),
        ("1: 2\n", "1 is not the name of an option in line 1"),
        ("part: {a: true}\n", "part.a must be a whole number"),
    ],
)
def test_a_file_with_a_value_that_means_nothing_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        parse("--config", str(tmp_path / "a.yaml"))
    assert words in str(caught.value)
    with pytest.raises(UserError) as caught:
        cli.config_of(Whole, tmp_path / "a.yaml")
    assert words in str(caught.value)


def test_a_configuration_of_another_command_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("c: 1\nwidth: 2\npart.a: 3\nnetwork.depth: 4\n")
    with pytest.raises(UserError) as caught:
        parse("--config", str(file))
    assert str(caught.value).startswith(f"{file} has options that this command lacks (width, network.depth); is it for")
    file.write_text("c: 1\nwidth: 2\n")
    with pytest.raises(UserError, match="no option width"):  # a single one may be a typo
        parse("--config", str(file))


def test_numbers_mean_the_same_in_a_file_and_on_the_command_line(tmp_path: Path) -> None:
    for text, value in (("010", 10), ("-7", -7), ("1e-3", 1e-3), ("1e3", 1e3), (".5", 0.5)):
        option = "c" if isinstance(value, float) else "part.a"
        (tmp_path / "a.yaml").write_text(f"c: {text}\n" if option == "c" else f"part: {{a: {text}}}\n")
        config = parse("--config", str(tmp_path / "a.yaml")).config
        assert config == parse(f"--{option}={text}").config
        assert (config.c if option == "c" else config.part and config.part.a) == value


def test_an_object_is_checked_like_a_file() -> None:
    assert cli.config_of(Whole, Whole(Part(2), 3.0)) == Whole(Part(2), 3.0)
    with pytest.raises(UserError, match="c must be finite, not nan"):
        cli.config_of(Whole, Whole(c=float("nan")))
    with pytest.raises(UserError, match=r"part\.a must be a whole number, not x"):
        cli.config_of(Whole, Whole(Part("x")))


def test_a_switch_works_with_and_without_a_value() -> None:
    found = []

    def work(fast: bool = False, n: int = 1) -> None:
        """Work."""
        found.append((fast, n))

    for args in (["--fast"], ["--fast", "true"], ["--fast=true"], ["--fast", "--n", "2"], ["--fast", "false"]):
        cli.call(work, args=args)
    assert found == [(True, 1), (True, 1), (True, 1), (True, 2), (False, 1)]
    with pytest.raises(UserError, match="n must be a whole number, not x"):
        cli.call(work, args=["--n", "x"])


def test_the_environment_of_accelerate_changes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerator_of()
    net = accelerator.prepare(nn.Linear(2, 1, bias=False))
    loss = net(torch.ones(1, 2)).sum()
    assert loss.dtype == torch.float32
    accelerator.backward(loss)
    assert net.weight.grad.tolist() == [[1.0, 1.0]]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="ACCELERATE_USE_FSDP is set"):
        accelerator_of()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "", "9" * 400])
def test_a_timeout_that_is_none_gets_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MMGAN_TIMEOUT", value)
    with pytest.raises(UserError, match=r"MMGAN_TIMEOUT is .*; set it to a whole number of seconds, or unset it"):
        accelerator_of()


def test_after_evaluation_every_module_has_its_own_mode_though_something_failed() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    network[1][1].eval()
    before = [module.training for module in network.modules()]
    assert before == [True, True, True, True, False]

    def fail() -> None:
        with evaluating(network):
            assert not any(module.training for module in network.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in network.modules()] == before


def test_a_signal_sent_twice_at_once_counts_once_and_a_later_one_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    acted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: acted.append(number))
    start = time.monotonic()
    try:
        with Stop(accelerator_of()) as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested(1)
            assert not acted
            monkeypatch.setattr("mmgan.engine.stop.time.monotonic", lambda: start + 60)
            signal.raise_signal(signal.SIGTERM)
            assert acted == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
