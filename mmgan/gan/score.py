"""Scores of a GAN's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from accelerate import Accelerator
from torch import Tensor, nn

from mmgan.data import DataChange
from mmgan.engine import checkpoint
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.run import load
from mmgan.gan.sample import generate, latents
from mmgan.scoring import PROTOCOLS, Extractor, Protocol, Scorer, records
from mmgan.scoring.records import Record
from mmgan.scoring.scorer import Draw


def draw(generator: nn.Module, z_dim: int, seed: int) -> Draw:
    """Images of a generator by number: image i depends on the seed and on i alone."""

    def images(start: int, stop: int) -> Tensor:
        (made,) = generate(generator, latents(seed, start, stop, z_dim), stop - start)
        return made

    return images


def score_run(
    run: Path,
    checkpoints: list[Literal["best", "last"] | int],
    extractor: Extractor,
    protocol: Protocol,
    name: str,
    accelerator: Accelerator,
    weights: Literal["auto", "raw", "ema"] = "auto",
    seed: int = 0,
    batch_size: int = 256,
    trust: bool = False,
    data: DataChange = DataChange(),  # noqa: B008
) -> list[Record]:
    """Score checkpoints of the GAN in `run` by `protocol`, called `name`, and keep the records in RUN/scores.json.

    With `trust` the run may name classes that are not mmgan's own; `data` says where its images are now. Raises
    UserError where there is nothing to load, or its images are of another size than the real ones.
    """
    loaded = [load(run, which, weights, accelerator.device, trust) for which in checkpoints]
    scorer = Scorer(extractor, data.of(loaded[0].config.data), protocol, accelerator, batch_size)
    check_size(scorer.shape, loaded[0].shape)
    floor = scorer.floor()
    made: list[Record] = []
    for which, one in zip(checkpoints, loaded, strict=True):
        record: Record = {"checkpoint": which, "step": one.step, "protocol": name, "dimension": scorer.dimension}
        record |= {
            "stamp": scorer.stamp(seed, one.weights),
            "scores": scorer.score(draw(one.generator, one.config.generator.z_dim, seed)),
        }
        if floor:
            record |= {"floor": floor[0], "num_floor": floor[1]}
        if accelerator.is_main_process:
            records.keep(run, record)
        made.append(record)
    return made


def final_scores(config: GANConfig, folder: Path, extractor: Extractor, accelerator: Accelerator) -> None:
    """Score a finished run's last and best checkpoint by its final protocol, where that is not done yet; print them."""
    name = config.score.final if config.score else None
    if not name:
        return
    checkpoints: list[Literal["best", "last"] | int] = ["last", "best"]
    steps = {"last": config.steps}
    try:
        steps["best"] = checkpoint.of_run(folder, "best").step
    except UserError as error:  # it was torn since
        accelerator.print(f"{error}; only the last one is scored")
        checkpoints.remove("best")
    protocol, seed, weights = PROTOCOLS[name], 0, "ema" if config.ema else "raw"
    ours = protocol.facts | {"extractor_hash": extractor.hash, "seed": seed, "generator": weights}
    made = {
        record["checkpoint"]: record
        for record in records.read(folder)
        if record["protocol"] == name
        and record["step"] == steps.get(record["checkpoint"])
        and ours.items() <= record["stamp"].items()
        and set(protocol.metrics) <= record["scores"].keys()
    }
    if made.keys() != steps.keys():
        scored = score_run(folder, checkpoints, extractor, protocol, name, accelerator, trust=True)
        made = {record["checkpoint"]: record for record in scored}
    accelerator.print(summary([made[which] for which in steps]))


def check_size(real: tuple[int, ...], made: tuple[int, ...]) -> None:
    """Raise UserError where real and generated images, [C, R, R], are not of one size."""
    if real != made:
        raise UserError(
            f"the run's images are {list(made)}, those to compare with {list(real)}: give the data it was trained on "
            "by data.name, data.root and data.resolution"
        )


def summary(made: list[Record]) -> str:
    """Records of one protocol as a table, with what they were measured by in words."""
    stamp = made[0]["stamp"]
    rows = [(f"{record['checkpoint']} checkpoint, step {record['step']}", record["scores"]) for record in made]
    if "floor" in made[0]:
        rows.append((f"floor: {made[0]['num_floor']} real test images", made[0]["floor"]))
    few = "" if stamp["is_samples"] == stamp["num_samples"] else f" ({stamp['is_samples']} for IS)"
    notes, fewest, dimension = "", min(stamp["num_samples"], stamp["num_reference"]), made[0]["dimension"]
    if dimension is not None and fewest <= dimension:
        notes += f"\n{fewest} images do not span {dimension} features: this FID is biased upwards"
    if any("kid" in record["scores"] and "kid_std" not in record["scores"] for record in made):
        notes += f"\nKID's spread needs more than the {stamp['kid'][1]} images of a subset on both sides"
    if "fid" in made[0].get("floor", {}) and made[0]["num_floor"] < stamp["num_samples"]:
        notes += "\nthe floor's FID is raised by being of fewer images than the samples"
    return (
        f"{made[0]['protocol']}: {stamp['num_samples']} samples{few} of the {stamp['generator']} generator against "
        f"{stamp['num_reference']} {stamp['reference']} images of {stamp['data']}, {stamp['extractor']} features\n"
        f"{records.table(rows)}{notes}"
    )
