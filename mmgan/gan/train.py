"""The training loop of a GAN."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mmgan.data import load
from mmgan.engine import checkpoint
from mmgan.engine.log import Log
from mmgan.engine.randomness import stream
from mmgan.engine.run import Run, make_accelerator, refuse_other_run
from mmgan.engine.stop import Stop
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import build
from mmgan.gan.plot import plot_losses, plot_scores
from mmgan.gan.sample import generate, latents, save_grid
from mmgan.gan.score import check_size, draw, score_run, summary
from mmgan.gan.updates import Updates
from mmgan.scoring import PROTOCOLS, Extractor, Protocol, Scorer, records

DIAGNOSED = 256
"""Images of each kind that diagnostics are of."""


def train(config: GANConfig, folder: Path, yaml: str, extractor: Extractor | None = None) -> None:
    """Train the GAN that `config` describes in `folder`, or go on from its last checkpoint.

    `yaml` is the configuration as text, kept with the run; `extractor` is the one `config.score` names. Raises
    UserError for what the user can mend. After SIGINT or SIGTERM the step at hand is finished and a checkpoint written,
    and the process ends with 128 + the signal.
    """
    if config.score and extractor is None:
        raise ValueError("config.score asks for scores; pass the extractor it names")
    refuse_other_run(folder, yaml)
    accelerator = make_accelerator(folder, config.mixed_precision, config.deterministic, config.tracker)
    with accelerator.local_main_process_first():
        images = _training_images(config)
        held_out = _held_out(config)
    _check_batches(config, len(images), accelerator.num_processes)
    torch.manual_seed(stream(config.seed, "weights", 0).initial_seed())
    generator, discriminator = build(config, images.shape[-1], images.shape[1])
    run = Run(folder, yaml, accelerator)

    saved = checkpoint.latest(run.checkpoints)
    run.agree_on(saved.step if saved else 0)
    if saved and saved.step == config.steps:
        accelerator.print(f"{folder} is finished: {config.steps} steps")
        _final_scores(config, folder, extractor, accelerator)
        return
    updates = Updates(config, generator, discriminator, images, accelerator)
    if saved:
        updates.restore(saved)
        accelerator.print(f"{folder}: going on after step {saved.step}")
    start = saved.step if saved else 0
    scorer, before = None, checkpoint.latest(run.best)
    best = before.state["fid"] if before else math.inf
    if config.score and extractor:
        protocol = Protocol(config.score.num_samples, config.score.reference)
        scorer = Scorer(extractor, config.data, protocol, accelerator)
        check_size(scorer.shape, tuple(images.shape[1:]))
    log = Log(run, accelerator, start, config.steps, config.log_every, saved.state["log"] if saved else {})

    with Stop(accelerator) as stop:
        for step in range(start + 1, config.steps + 1):
            done = (step - 1) / config.steps
            updates.set_lr(config.lr * (1 - done) if config.lr_schedule == "linear" else config.lr)
            numbers = range((step - 1) * config.n_dis, step * config.n_dis)
            if config.reuse_fakes:
                loss, fake = updates.generator(step)
                terms = [updates.discriminator(number, fake) for number in numbers]
            else:
                terms = [updates.discriminator(number) for number in numbers]
                loss, _ = updates.generator(step)
            means = {f"loss/{name}": torch.stack([t[name] for t in terms]).mean() for name in terms[0]}
            log.add(step, means | {"loss/generator": loss})

            last = step == config.steps
            stopped = not last and stop.requested(step)
            if scorer and config.score and (step % config.score.every == 0 or last):
                with updates.one_sampler() as sampler:
                    scores = scorer.score(draw(sampler, config.generator.z_dim, seed=0))  # the same for all runs
                log.record(step, {f"score/{name}": score for name, score in scores.items()})
                if scores["fid"] < best:
                    best = scores["fid"]
                    if accelerator.is_main_process:
                        checkpoint.save(run.best, step, updates.weights(), updates.facts() | scores, keep=1)
            if accelerator.is_main_process and (step % config.sample_every == 0 or last):
                z = latents(config.seed, 0, DIAGNOSED, config.generator.z_dim)
                fakes = torch.cat(list(generate(updates.sampler(), z)))
                save_grid(fakes[:100], folder / "samples" / f"step-{step:06d}.png", columns=10)
                log.record(step, *updates.diagnose(fakes, held_out))
            if step % config.checkpoint_every == 0 or stopped or last:
                state = updates.state() | {"log": log.state(step)}
                if accelerator.is_main_process:  # the checkpoint last: what comes before it is done again if it fails
                    plot_losses(run.metrics, folder / "plots" / "losses.png")
                    plot_scores(run.metrics, folder / "plots" / "scores.png")
                    checkpoint.save(run.checkpoints, step, updates.weights(), state, config.keep_checkpoints)
            if stopped:
                break
    if not stopped:
        accelerator.print(f"{folder} is finished: samples, plots and checkpoints are in it")
        _final_scores(config, folder, extractor, accelerator)
    log.close()
    run.release()
    if stopped:
        accelerator.print(f"stopped after step {step}; the same command goes on from there")
        sys.exit(128 + stop.signal)


def _final_scores(config: GANConfig, folder: Path, extractor: Extractor | None, accelerator: Accelerator) -> None:
    """Score the last and the best checkpoint by the final protocol, where that was asked for and is not done yet."""
    if not (config.score and config.score.final and extractor):
        return
    name = config.score.final
    steps = {"last": config.steps, "best": checkpoint.of_run(folder, "best").step}
    ours = {"extractor_hash": extractor.hash, "seed": 0, "generator": "ema" if config.ema else "raw"}
    made = {
        record["checkpoint"]: record
        for record in records.read(folder)
        if record["protocol"] == name
        and record["step"] == steps.get(record["checkpoint"])
        and ours.items() <= record["stamp"].items()
        and set(PROTOCOLS[name].metrics) <= record["scores"].keys()
    }
    if made.keys() != steps.keys():
        scored = score_run(folder, ["last", "best"], extractor, PROTOCOLS[name], name, accelerator)
        made = {record["checkpoint"]: record for record in scored}
    accelerator.print(summary([made[which] for which in steps]))


def _training_images(config: GANConfig) -> Tensor:
    """uint8 [N, C, R, R]: the data set, or `data.subset` images of it in their order."""
    images, size = load(config.data).images, config.data.subset
    if size is None:
        return images
    if size > len(images):
        raise UserError(f"data.subset {size} is larger than the data set of {len(images)} images")
    return images[torch.randperm(len(images), generator=stream(config.seed, "subset", 0))[:size].sort().values]


def _held_out(config: GANConfig) -> Tensor | None:
    """Real images that training does not see, for diagnostics; None where the data set has no other split."""
    if config.data.split != "train":
        return None
    try:
        images = load(replace(config.data, split="test")).images
    except UserError:
        return None
    return images[torch.randperm(len(images), generator=stream(config.seed, "held-out", 0))[:DIAGNOSED]]


def _check_batches(config: GANConfig, size: int, processes: int) -> None:
    """Raise UserError for a batch that the data or the processes do not allow."""
    if config.batch_size > size:
        raise UserError(f"batch_size {config.batch_size} is larger than the data set of {size} images")
    if processes > 1 and config.mixup and config.mixup.rows == "first":
        raise UserError("mixup.rows first repeats one pair for the whole batch, so it needs a single process")
    for name, batch in (("batch_size", config.batch_size), ("g_batch_size", config.generator_batch)):
        if processes > 1 and batch % (2 * processes):
            raise UserError(f"{name} {batch} must be a multiple of {2 * processes} for {processes} processes")
