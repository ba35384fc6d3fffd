"""The training loop of a classifier."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifiers.config import ClassifierConfig
from classifiers.evaluation.measures import error, nll, predict
from classifiers.learnt import learnt, network_of
from classifiers.plot import plot_interval, plot_training
from classifiers.preprocess import blank, fit
from classifiers.split import split
from classifiers.updates import Updates
from mmgan import memory
from mmgan.data import Images, load
from mmgan.engine import checkpoint, cli
from mmgan.engine.accelerator import make_accelerator
from mmgan.engine.changes import refuse_other_run
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.log import Log
from mmgan.engine.randomness import stream
from mmgan.engine.run import Run
from mmgan.engine.stop import Stop
from mmgan.errors import UserError
from mmgan.mixup import Staged
from mmgan.mixup.staged import check_layers


def train(config: ClassifierConfig | Mapping[str, Any] | str | Path, folder: str | Path, trust: bool = False) -> None:
    """Train the classifier that `config` describes in `folder`, or resume from its last checkpoint.

    `config` is a ClassifierConfig, a dictionary of its options, a YAML file, or the name of one that comes with mmgan
    (cls/digits); with `trust` it may name classes from outside mmgan. If there are validation images, the
    checkpoint with the lowest error on them is kept in `best/`. Raises UserError for what the user can correct. After
    SIGINT or SIGTERM the current step is finished, a checkpoint is written and the process exits with 128 + the signal.

    Examples:
        >>> import classifiers
        >>> small = {"data": {"name": "digits", "labels_per_class": 4}, "network": {"width": 0.0625}, "batch_size": 20}
        >>> classifiers.train({**small, "epochs": 1, "lr_schedule": "constant", "tracker": None}, folder)
        >>> (folder / "checkpoints" / "step-000002").is_dir()
        True
    """
    config, folder = cli.config_of(ClassifierConfig, config, trust), Path(folder)
    yaml = cli.to_yaml(config)
    refuse_other_run(folder, yaml)
    accelerator = make_accelerator(folder, config.mixed_precision, config.deterministic, config.tracker, config.compile)
    with accelerator.local_main_process_first():
        images, labels = load(config.data)
    rows, classes = split(labels, config.data), int(labels.max()) + 1
    real, held = (Images(images[part], labels[part]) for part in rows[:2])
    pool = images[rows.pool]
    network = _network(config, real, pool, classes, accelerator.num_processes, accelerator.device)
    loose = int((labels < 0).sum())
    if loose and not config.ssl:
        accelerator.print(f"{loose} images without a label are left out; with a section ssl they are used")
    source = checkpoint.source(folder, config.init_from)
    if source:
        source.restore("network", network)
    with Run(folder, yaml, accelerator) as run:
        if accelerator.is_main_process:
            run.write("split.json", json.dumps({name: part.tolist() for name, part in rows._asdict().items()}))

        saved = checkpoint.latest(run.checkpoints)
        run.agree_on(saved, config.keep_checkpoints)
        size, batch = len(rows.train), config.batch_size
        steps = math.ceil(config.epochs * size / batch)
        if saved and saved.step == steps:
            accelerator.print(f"{folder} is finished: {config.epochs} epochs")
            return
        blocks = _blocks(config, saved, accelerator.num_processes)
        updates = Updates(config, network, real, classes, accelerator, pool if config.ssl else None, blocks)
        if not saved:
            checkpoint.rehearse(updates.networks)
        updates.rehearse()
        if saved:
            updates.restore(saved)
            accelerator.print(f"{folder}: resuming after step {saved.step}")
        if source:
            for name in updates.learnt.networks.keys() & source.weights.keys():
                source.restore(name, updates.learnt.networks[name])
            accelerator.print(f"{folder}: starting from the weights in {source.path}")
        start = saved.step if saved else 0
        best = saved.fact("best", float) if saved else math.inf
        logged = saved.fact("log", dict) if saved else {}

        with Log(run, start, steps, config.log_every, logged) as log, Stop(accelerator) as stop:
            for step in range(start + 1, steps + 1):
                updates.set_lr((step - 1) * batch / size)
                log.add(step, updates.step(step - 1), updates.lr)

                last = step == steps
                stopped = not last and stop.requested(step)
                epoch = step * batch // size
                ended = epoch > (step - 1) * batch // size
                due = last or (ended and epoch % config.validate_every == 0)
                if due and len(held.images) and accelerator.is_main_process:
                    logits = predict(updates.networks["network"], held.images, accelerator.device)
                    scores = {f"validation/{one.__name__}": one(logits, held.labels) for one in (error, nll)}
                    log.record(step, scores, {"epoch": step * batch / size})
                    if scores["validation/error"] < best:
                        best = scores["validation/error"]
                        checkpoint.save(run.best, step, updates.networks, updates.facts() | scores, keep=1)
                if last or stopped or (ended and epoch % config.checkpoint_every == 0):
                    state = updates.state() | {"log": log.state(step), "best": best}
                    if accelerator.is_main_process:  # the checkpoint last: what precedes it is repeated if it fails
                        plot_training(run.metrics, folder / "plots" / "training.png", size / batch)
                        plot_interval(run.metrics, folder / "plots" / "interval.png", size / batch)
                        checkpoint.save(run.checkpoints, step, updates.networks, state, config.keep_checkpoints)
                if stopped:
                    break
    if stopped:
        accelerator.print(f"stopped after step {step}; the same command resumes from there")
        sys.exit(128 + stop.signal)
    found = f", best error on {len(rows.validation)} validation images {best:.2%}" if len(rows.validation) else ""
    accelerator.print(f"{folder} is finished{found}: checkpoints and plots are in it")


def check(config: ClassifierConfig) -> None:
    """Raise UserError if a run of `config` could not begin because of its data, batches, network or layers."""
    images, labels = load(config.data)
    rows = split(labels, config.data)
    real = Images(images[rows.train], labels[rows.train])
    _network(config, real, images[rows.pool], int(labels.max()) + 1, 1, torch.device("cpu"))


def _network(
    config: ClassifierConfig, real: Images, pool: Tensor, classes: int, processes: int, device: torch.device
) -> Staged:
    """The network for labelled images and `pool`, with seeded weights; raises UserError if it cannot be trained."""
    _check_batches(config, len(real.images), len(pool), processes)
    # DistributedDataParallel would see gradients of the weights below the mix twice.
    if processes > 1 and config.l1 and config.mixup and config.mixup.detach:
        raise UserError("l1 with mixup.detach works with one process alone; set l1 0 or mixup.detach false")
    shape, halves = list(real.images.shape[1:]), 2 if config.mixed_precision else 1
    rows = config.batch_size + (config.unlabelled_batch if config.ssl else 0)
    rows *= 2 if config.mixup and config.mixup.learns else 1  # mixed rows, and the same number for the policy
    rows *= 2 if config.adversarial and config.adversarial.clean else 1

    def made() -> list[nn.Module]:
        network = network_of(config, classes, blank(config.data.preprocess, shape), shape)
        return [network, *learnt(config, network, classes).networks.values()]

    needed = memory.needed_for(
        made,
        lambda networks: networks[0](torch.zeros(2, *shape)),
        rows // processes // halves,
        memory.COPIES["SGD"],
    )
    sizes = "network.width, network.depth, fortified.hidden, data.resolution, batch_size or ssl.batch_size"
    memory.refuse_more(needed, device, "the network and a batch", sizes)
    if config.data.pad > shape[-1]:
        raise UserError(f"data.pad {config.data.pad} is more than the {shape[-1]} pixels of the images")
    torch.manual_seed(stream(config.seed, "weights", 0).initial_seed())
    network = network_of(config, classes, fit(config.data.preprocess, real.images, pool), shape)
    for section, rule in config.rules.items():
        try:
            check_layers(rule, network, pool[:2].float() / 255, partial(stream, config.seed, "checked layer"))
        except ValueError as error:
            raise UserError(f"{section}.layers {list(rule.layers)}: {error}") from error
    return network


def _check_batches(config: ClassifierConfig, size: int, pool: int, processes: int) -> None:
    """Raise UserError for a batch that the data or the processes do not allow."""
    batches = [("", config.batch_size, size), ("ssl.", config.unlabelled_batch, pool)]
    for section, batch, there in batches if config.ssl else batches[:1]:
        if batch > there:
            raise UserError(f"{section}batch_size {batch} is larger than the {there} training images")
        if batch % processes:
            raise UserError(f"{section}batch_size {batch} must be a multiple of the {processes} processes")
        try:
            rule = config.rules.get(f"{section}mixup")
            drawn = rule.draw(batch, stream(config.seed, "checked batch", 0), processes).plans if rule else ()
        except ValueError as error:
            raise UserError(f"{section}batch_size {batch}, {processes} process(es): {error}") from error
        if rule and rule.learns and min(len(plan.left) for plan in drawn) < 2 * processes:
            raise UserError(f"{section}batch_size {batch} gives one pair per process, from which a policy cannot learn")


def _blocks(config: ClassifierConfig, saved: Checkpoint | None, processes: int) -> int:
    """Number of parts of a batch within which pairs are mixed: the number of processes that the run started with.

    Raises UserError if the present processes cannot share them equally.
    """
    if saved is None or not config.rules:
        return processes
    blocks = saved.fact("blocks", int)
    if blocks % processes:
        raise UserError(
            f"the run was started with {blocks} process(es) and mixes pairs within {blocks} part(s) of a batch, which "
            f"{processes} cannot share equally; start it with {blocks}, or a divisor of {blocks}"
        )
    return blocks
