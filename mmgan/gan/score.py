"""Scores of a GAN's checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from mmgan.data import DataChange, DataConfig
from mmgan.engine import checkpoint as checkpoints
from mmgan.engine.run import accelerator_of
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.data import class_names
from mmgan.gan.run import load
from mmgan.gan.sources import draw
from mmgan.scoring import PROTOCOLS, Extractor, ExtractorConfig, Inception, Protocol, Scorer, records
from mmgan.scoring.protocol import FIRST, ProtocolName, comparable
from mmgan.scoring.records import Record
from mmgan.scoring.source import Source, of_data


def score(
    run: Path,
    checkpoint: Literal["best", "last"] | int = "last",
    extractor: ExtractorConfig = Inception(),  # noqa: B008
    protocol: ProtocolName = "train-50k",
    num_samples: int | None = None,
    reference: Literal["train", "test"] | None = None,
    metrics: str = "is,fid",
    weights: Literal["auto", "raw", "ema"] = "auto",
    seed: int = 0,
    batch_size: int = 256,
    against: Path | None = None,
    trust: bool = False,
    data: DataChange = DataChange(),  # noqa: B008
) -> None:
    """Score a trained GAN by IS, FID, KID, precision and recall, and record the protocol with the scores.

    Args:
        run: run folder
        checkpoint: last, best (by the scores during training), or the step of a saved checkpoint
        extractor: Inception (FID's own network; --extractor.weights FILE), Fidelity (any of torch-fidelity's networks),
            Torchvision (any of its classifiers), or Classifier: a run of mmgan train-cls on the same data
            (--extractor.run FOLDER)
        protocol: train-50k: 50,000 samples against the training set; test-10k: 10,000 against the test set; paper:
            50,000 against the test set, as in the authors' code; miyato: 5,000 against 10,000 test images, IS of 50,000
        num_samples: number of samples; null: the protocol's
        reference: split of the real images; null: the protocol's
        metrics: any of is, fid, kid, prc (precision and recall), dc (density and coverage) and, for a conditional GAN,
            intra (FID of each class), separated by commas
        weights: raw, ema (the average), or auto: ema if the run has one
        seed: seed of the latents; sample i depends only on it and i
        batch_size: images per batch in each process
        against: another run, already scored by the same protocol, to print next to this one
        trust: let the run name classes from outside mmgan, which are then imported
        data: the run's images, if they have moved: --data.root FOLDER
    """
    if batch_size < 1:
        raise UserError("batch_size must be positive")
    changes: dict[str, Any] = {}
    if num_samples is not None:
        changes |= {"num_samples": num_samples, "is_samples": None}
    if reference is not None:
        changes |= {"reference": reference, "num_reference": None}
    by = replace(PROTOCOLS[protocol].of(metrics), **changes)
    name = f"{protocol}, changed" if changes else protocol
    checkpoints.of_run(run, checkpoint)  # report a mistake in it before fetching an extractor
    accelerator = accelerator_of()
    built = extractor.build()
    made = score_run(run, [checkpoint], built, by, name, accelerator, weights, seed, batch_size, trust, data)
    if not accelerator.is_main_process:
        return
    print(summary(made))
    if against:
        others = [other for other in records.read(against) if other["checkpoint"] == checkpoint]
        if not others:
            raise UserError(f"{against} has no score of its {checkpoint} checkpoint; score it first")
        other = next((one for one in others if records.same(one, made[0])), others[-1])
        comparable(other["stamp"], made[0]["stamp"])
        print(records.table([(str(run), made[0]["scores"]), (str(against), other["scores"])]))


def score_run(
    run: Path,
    which: list[Literal["best", "last"] | int],
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
    """Score checkpoints of the GAN in `run` by `protocol`, called `name`, and save the records in RUN/scores.json.

    With `trust`, the run may name classes from outside mmgan; `data` gives the current location of its images. Raises
    UserError if there is nothing to load, or if its images differ in size from the real ones.
    """
    loaded = [load(run, one, weights, accelerator.device, trust) for one in which]
    if "intra" in protocol.metrics and not loaded[0].inputs.names:
        raise UserError(f"metrics: intra needs classes, which {run} does not have: it is not conditional")
    images, names = data.of(loaded[0].config.data), loaded[0].inputs.names
    if "intra" in protocol.metrics and images.name == "folder" and tuple(class_names(images)) != names:
        raise UserError(f"metrics: intra compares class by class, and the classes in {images.root} are not the run's")
    scorer = Scorer(extractor, reference_of(images, protocol, accelerator), protocol, accelerator, batch_size)
    check_size(scorer.shape, loaded[0].shape)
    floor = held_out_of(images, protocol, accelerator)
    of_floor = {"floor": scorer.floor(floor), "num_floor": floor.number} if floor else {}
    made: list[Record] = []
    for label, one in zip(which, loaded, strict=True):
        labels = one.inputs.labels(seed, 0, protocol.num_samples) if one.inputs.names else None
        record: Record = {"checkpoint": label, "step": one.step, "protocol": name, "dimension": scorer.dimension}
        record |= {
            "stamp": scorer.stamp(seed, one.weights) | ({"labels": one.inputs.drawn} if one.inputs.names else {}),
            "scores": scorer.score(draw(one.generator, one.inputs, seed), labels),
        }
        record |= of_floor
        if accelerator.is_main_process:
            records.keep(run, record)
        made.append(record)
    return made


def reference_of(data: DataConfig, protocol: Protocol, accelerator: Accelerator) -> Source:
    """The real images that `protocol` requires; raises UserError if they are not available."""
    try:
        return of_data(replace(data, split=protocol.reference), accelerator, protocol.num_reference)
    except UserError as error:
        raise UserError(f"reference {protocol.reference}: {error}") from error


def held_out_of(data: DataConfig, protocol: Protocol, accelerator: Accelerator) -> Source | None:
    """Images of the test split, no more than samples; None if that is the reference or does not exist."""
    if protocol.reference == "test":
        return None
    try:
        return of_data(replace(data, split="test"), accelerator, protocol.num_samples)
    except UserError:
        return None


def final_scores(config: GANConfig, folder: Path, extractor: Extractor, accelerator: Accelerator) -> None:
    """Score a finished run's last and best checkpoint by its final protocol, unless already done, and print scores."""
    if config.score is None or config.score.final is None:
        return
    name = config.score.final
    which: list[Literal["best", "last"] | int] = ["last", "best"]
    steps = {"last": config.steps}
    try:
        steps["best"] = checkpoints.of_run(folder, "best").step
    except UserError as error:  # it has been damaged since
        accelerator.print(f"{error}; only the last one is scored")
        which.remove("best")
    protocol, seed, weights = PROTOCOLS[name].of(config.score.final_metrics), 0, "ema" if config.ema else "raw"
    ours = protocol.facts | {"extractor_hash": extractor.hash, "seed": seed, "generator": weights}
    made = {
        record["checkpoint"]: record
        for record in records.read(folder)
        if record["protocol"] == name
        and record["step"] == steps.get(record["checkpoint"])
        and ours.items() <= record["stamp"].items()
        and {FIRST[metric] for metric in protocol.metrics} <= record["scores"].keys()
    }
    if made.keys() != steps.keys():
        scored = score_run(folder, which, extractor, protocol, name, accelerator, trust=True)
        made = {record["checkpoint"]: record for record in scored}
    accelerator.print(summary([made[one] for one in steps]))


def check_size(real: tuple[int, ...], made: tuple[int, ...]) -> None:
    """Raise UserError if real and generated images, [C, R, R], differ in size."""
    if real != made:
        raise UserError(
            f"the run's images are {list(made)}, but those to compare with are {list(real)}: set data.name, data.root "
            "and data.resolution to the data it was trained on"
        )


def summary(made: list[Record]) -> str:
    """Records of one protocol as a table, with a description of the measurement."""
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
        notes += "\nthe floor's FID is biased upwards because it has fewer images than the samples"
    return (
        f"{made[0]['protocol']}: {stamp['num_samples']} samples{few} of the {stamp['generator']} generator against "
        f"{stamp['num_reference']} {stamp['reference']} images of {stamp['data']}, {stamp['extractor']} features\n"
        f"{records.table(rows)}{notes}"
    )
