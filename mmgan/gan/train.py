"""The training loop of a GAN."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmgan import memory
from mmgan.data import fingerprint
from mmgan.engine import checkpoint, cli
from mmgan.engine.accelerator import make_accelerator
from mmgan.engine.changes import refuse_other_run
from mmgan.engine.log import Log
from mmgan.engine.randomness import stream
from mmgan.engine.run import Run
from mmgan.engine.stop import Stop
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.data import held_out, inputs_of, training_images
from mmgan.gan.final import final_scores
from mmgan.gan.inputs import Inputs
from mmgan.gan.schedule import rates
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.gan.watch import Watch
from mmgan.mixup.staged import check_layers
from mmgan.scoring import PROTOCOLS, Protocol, Scorer
from mmgan.scoring.cache import content_hash
from mmgan.scoring.source import reference_of


def train(config: GANConfig | Mapping[str, Any] | str | Path, folder: str | Path, trust: bool = False) -> None:
    """Train the GAN that `config` describes in `folder`, or resume from its last checkpoint.

    `config` is a GANConfig, a dictionary of its options, a YAML file, or the name of one shipped with mmgan
    (gan/digits); with `trust` it may name classes from outside mmgan. Raises UserError for mistakes that the user can
    fix. After SIGINT or SIGTERM, it finishes the current step, writes a checkpoint, and ends the process with exit code
    128 + the signal.

    Examples:
        >>> import mmgan
        >>> mmgan.train({"data": {"name": "digits"}, "steps": 2, "n_dis": 1, "tracker": None, **small}, folder)
        >>> (folder / "samples" / "step-000002.png").exists()
        True
    """
    config, folder = cli.config_of(GANConfig, config, trust), Path(folder)
    yaml = cli.to_yaml(config)
    extractor = config.score.extractor.build() if config.score else None
    refuse_other_run(folder, yaml)
    accelerator = make_accelerator(folder, config.mixed_precision, config.deterministic, config.tracker, config.compile)
    with accelerator.local_main_process_first():
        (images, labels), fresh = training_images(config), held_out(config)
    _check_batches(config, len(images), accelerator.num_processes)
    inputs = inputs_of(config, labels)
    networks = _networks(config, images, inputs, accelerator.num_processes, accelerator.device)
    source = checkpoint.source(folder, config.init_from)
    if source:
        theirs = source.state.get("classes", [])
        if isinstance(theirs, list) and theirs != list(inputs.names):
            raise UserError(f"init_from: {config.init_from} has {_said(theirs)}, not {_said(inputs.names)}")
        source.restore("generator", networks[0])
        source.restore("discriminator", networks[1])
    with Run(folder, yaml, accelerator) as run:
        saved = checkpoint.latest(run.checkpoints)
        run.agree_on(saved, config.keep_checkpoints)
        if saved and extractor and saved.state.get("extractor", extractor.hash) != extractor.hash:
            raise UserError(f"{saved.path} was scored with a different extractor from the current score.extractor")
        if saved and saved.step == config.steps:
            accelerator.print(f"{folder} is finished: {config.steps} steps")
            if extractor:
                final_scores(config, folder, extractor, accelerator)
            return
        gan = State(config, *networks, accelerator, inputs)
        if not saved:
            checkpoint.rehearse(gan.kept)
        steps = Steps(config, gan, images, labels if inputs.names else None)
        steps.rehearse()
        facts = {"resolution": images.shape[-1], "channels": images.shape[1], "data": fingerprint(images)}
        facts["extractor"] = extractor.hash if extractor else None
        if inputs.names:
            facts |= {"classes": list(inputs.names), "weights": list(inputs.weights), "labels": content_hash(labels)}
        if saved:
            if any(saved.state.get(name) != facts.get(name) for name in ("data", "classes", "labels")):
                raise UserError(
                    f"{saved.path} was trained on images or labels that differ from those of data.name and data.root; "
                    f"to train on these from its weights, use another --output and --init_from {folder}"
                )
            gan.restore(saved)
            accelerator.print(f"{folder}: resuming after step {saved.step}")
        if source:
            gan.start_average(source)
            accelerator.print(f"{folder}: starting from the weights in {source.path}")
        start = saved.step if saved else 0
        scorer = None
        if config.score and extractor:
            protocol = Protocol(config.score.num_samples, config.score.reference)
            real = reference_of(config.data, protocol, accelerator)
            if config.score.final and (final := PROTOCOLS[config.score.final]).reference != protocol.reference:
                reference_of(config.data, final, accelerator)  # report what is missing now, not after training
            if real.shape != images.shape[1:]:
                raise UserError(f"score.reference {real.split}: its images are {list(real.shape)}, not as in training")
            scorer = Scorer(extractor, real, protocol, accelerator)
        best = saved.fact("best", float) if saved else math.inf
        logged = saved.fact("log", dict) if saved else {}

        with Log(run, start, config.steps, config.log_every, logged) as log:
            watch = Watch(config, run, steps, log, scorer, fresh, facts, best)
            with Stop(accelerator) as stop:
                for step in range(start + 1, config.steps + 1):
                    now = rates(config, step)
                    gan.set_rates(now)
                    terms = steps.both(step)
                    log.add(step, {f"loss/{name}": value for name, value in terms.items()}, now.lr)
                    stopped = step < config.steps and stop.requested(step)
                    watch(step, stopped)
                    if stopped:
                        break
            if not stopped:
                accelerator.print(f"{folder} is finished and contains samples, plots and checkpoints")
                if extractor:
                    final_scores(config, folder, extractor, accelerator)
    if stopped:
        accelerator.print(f"stopped after step {step}; run the same command to continue")
        sys.exit(128 + stop.signal)


def _said(names: Sequence[str]) -> str:
    """Class names as text."""
    return f"the classes {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "no classes"


def check(config: GANConfig) -> None:
    """Raise UserError if a run of `config` could not begin because of its data, batches, networks or layers."""
    images, labels = training_images(config)
    _check_batches(config, len(images), 1)
    _networks(config, images, inputs_of(config, labels), 1, torch.device("cpu"))


def _networks(
    config: GANConfig, images: Tensor, inputs: Inputs, processes: int, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for `images`, initialised from the seed; raises UserError if mixup is impossible."""
    channels, resolution, classes = *images.shape[1:3], len(inputs.names)
    rows = max(config.batch_size, config.generator_batch) // processes // (2 if config.mixed_precision else 1)
    needed = memory.needed_for(
        lambda: build(config, resolution, channels, classes),
        lambda networks: networks[1](networks[0](torch.zeros(2, inputs.z_dim + classes))),
        rows,
        memory.COPIES["Adam"],
    )
    sizes = "generator.width, generator.z_dim, discriminator.width, data.resolution, batch_size or g_batch_size"
    memory.refuse_more(needed, device, "the networks and a batch", sizes)
    torch.manual_seed(stream(config.seed, "weights", 0).initial_seed())
    networks = build(config, resolution, channels, classes)
    if config.mixup:
        draws = partial(stream, config.seed, "checked layer")
        try:
            check_layers(config.mixup, networks[1], torch.zeros(4, *images.shape[1:]), draws)
        except ValueError as error:
            raise UserError(f"mixup.layers {list(config.mixup.layers)}: {error}") from error
    return networks


def _check_batches(config: GANConfig, size: int, processes: int) -> None:
    """Raise UserError for a batch size that the data or the number of processes does not allow."""
    if config.batch_size > size:
        raise UserError(f"batch_size {config.batch_size} is larger than the data set of {size} images")
    if processes > 1 and config.mixup and config.mixup.rows == "first":
        raise UserError("mixup.rows first repeats one pair over the whole batch, so it needs a single process")
    for name, batch in (("batch_size", config.batch_size), ("g_batch_size", config.generator_batch)):
        if processes > 1 and batch % (2 * processes):
            raise UserError(f"{name} {batch} must be a multiple of {2 * processes} for {processes} processes")
