"""Scores of any images, or any generator, against any images."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from mmgan.data import DataConfig
from mmgan.engine import files
from mmgan.engine.accelerator import accelerator_of
from mmgan.engine.cli import config_of
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.sample import save_grid
from mmgan.gan.sources import named_run, open_source
from mmgan.scoring import PROTOCOLS, Extractor, ExtractorConfig, Inception, Protocol, Scorer, records
from mmgan.scoring.duplicates import Remembered, digest, duplicates, fingerprints_of
from mmgan.scoring.extractors import of_module
from mmgan.scoring.protocol import ProtocolName
from mmgan.scoring.records import Record
from mmgan.scoring.scorer import LEAST, NO_CLASS, Features, shared_classes
from mmgan.scoring.source import (
    Draw,
    Source,
    apart,
    first,
    in_channels,
    labels_of,
    of,
    of_draw,
    reference_of,
    resized,
)

Networks = ExtractorConfig | Extractor | nn.Module
Images = str | Path | Tensor | np.ndarray | Draw
REAL_SEED = 2**40
"""Seed of a generator's images when others are compared with them."""
SHOWN = 10
"""Number of samples in the picture of nearest images."""


def score(
    fake: Images,
    real: Images | None = None,
    extractor: Networks = Inception(),  # noqa: B008
    protocol: ProtocolName = "train-50k",
    metrics: str = "is,fid",
    num_samples: int | None = None,
    seeds: Sequence[int] = (0,),
    resize: int | None = None,
    channels: Literal[1, 3] | None = None,
    held_out: Images | None = None,
    nearest: str | Path | None = None,
    floor: bool = True,
    weights: Literal["auto", "raw", "ema"] = "auto",
    z_dim: int | None = None,
    root: str | None = None,
    download: bool = False,
    skip_broken: bool = False,
    batch_size: int = 256,
    output: str | Path | None = None,
    trust: bool = False,
) -> Record:
    """Score images, or those of a generator, against real ones, and estimate how much of the score is noise.

    Images are named as RUN or RUN:CHECKPOINT (best, last, or a step), a data set as NAME or NAME:SPLIT, a folder or a
    zip of images, an .npy or .npz of uint8 images, a TorchScript generator, or module:function, where the function maps
    (start, stop) to images start to stop - 1. In Python they can also be a tensor, uint8 [N, C, H, W], or such a
    function; and the extractor can be any module that maps images in [0, 1], float32 [B, C, H, W], to features [B, d]
    or to (features, logits [B, K]).

    Returns the record: `scores`; the `stamp`, with everything they depend on except the scored images, which `fake`
    describes; and `floor`, the scores of `num_floor` real images against the other real ones. For several seeds,
    `scores` are means, and NAME_std standard deviations. Raises UserError if images cannot be compared.

    Args:
        fake: images to score
        real: images to compare with; null: those of the data set a run was trained on, of the protocol's split. A
            generator makes as many as are scored
        extractor: network whose features are compared: Inception, Fidelity (any of torch-fidelity's networks),
            Torchvision (any of its classifiers), or Classifier (a run of mmgan train-cls)
        protocol: train-50k: 50,000 samples against the training set; test-10k: 10,000 against the test set; paper:
            50,000 against the test set, as in the authors' code; miyato: 5,000 against 10,000 test images, IS of
            50,000. With `real`, only its numbers of samples count, and none for a set of images
        metrics: any of is, fid, kid, prc (precision and recall), dc (density and coverage) and intra (FID of each
            class), separated by commas
        num_samples: number of images to score; null: all, or from a generator the protocol's
        seeds: sampling seeds of a generator; for several, the mean and standard deviation are reported
        resize: side, in pixels, to resize all images to; null: they must have the same size
        channels: convert all images to 1 channel (luma) or 3 (grey repeated); null: they must have the same number
        held_out: real images that the generator has not seen, to test whether it has memorised `real`: the FID to
            equally many images of `real` minus the FID to these
        nearest: PNG file for a picture of ten samples, each with the five nearest real images
        floor: also score some real images against the others, to show what a perfect generator would get
        weights: weights of a run: raw, ema (the average), or auto: ema if the run has one
        z_dim: dimension of a TorchScript generator's latents; null: its attribute `z_dim`
        root: folder of the data sets; null: data, and that of its configuration for a run's own
        download: download a data set that is missing there
        skip_broken: leave out broken files of a folder and list them
        batch_size: images per batch in each process
        output: JSON file for the record; null: the scores.json of a run, and none for other images
        trust: let a run name classes from outside mmgan, which are then imported

    Examples:
        >>> import mmgan, torch
        >>> from torch import nn
        >>> images = torch.randint(256, (2, 100, 1, 8, 8), dtype=torch.uint8)
        >>> means = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
        >>> record = mmgan.score(images[0], images[1], extractor=means, metrics="fid")
        >>> list(record["scores"])
        ['fid']
    """
    output, nearest = (Path(file) if file is not None else None for file in (output, nearest))
    counts = {"batch_size": batch_size, "num_samples": num_samples, "resize": resize}
    _check_options(protocol, metrics, seeds, channels, nearest, counts)
    if held_out is not None and "fid" not in metrics.lower():
        raise UserError("held_out compares FIDs; include fid in metrics")
    _writable(output, "--output")
    _writable(nearest, "--nearest")
    run = named_run(str(fake)) if isinstance(fake, str | Path) else None
    if run and not output:
        records.read(run[0])  # report a damaged file before computing anything
        _writable(run[0] / "scores.json", "--output")
    accelerator = accelerator_of()
    data, by = DataConfig(root=root or "data", skip_broken=skip_broken, download=download), PROTOCOLS[protocol]

    def changed(source: Source) -> Source:
        source = resized(source, resize) if resize else source
        return in_channels(source, channels) if channels else source

    def opened(images: Images) -> Source:
        return changed(_open(images, accelerator, data, resize, weights, z_dim, trust))

    made = opened(fake)
    if real is not None:
        reference = opened(real)
    elif run:
        given = {"root": root, "skip_broken": skip_broken, "download": download}
        reference = changed(_own_of(run[0], by, accelerator, trust, given))
    else:
        raise UserError("real must name the images to compare with; only a run has a default")
    if len(seeds) > 1 and not made.seeded:
        raise UserError("only a run or a TorchScript generator has seeds; a set of images or a function has none")
    if made.number is not None and (num_samples or 0) > made.number:
        raise UserError(f"num_samples {num_samples} is more than the {made.number} available images")
    stated = num_samples is None and made.number is None
    exact = real is None and (resize, channels, weights, tuple(seeds)) == (None, None, "auto", (0,))
    num_samples = num_samples or made.number or by.num_samples
    if num_samples < LEAST["is"]:
        raise UserError(f"{num_samples} images are too few to score; at least {LEAST['is']} are needed")
    if num_samples < (made.number or 0):
        made, _ = apart(made, num_samples)
    reference = _finite(reference, num_samples)
    _check_sizes(made, reference)
    is_samples = by.is_samples if stated else None
    wanted = Protocol(num_samples, reference.split or "all", is_samples=is_samples).of(metrics)
    shared = _shared(made, seeds, num_samples, reference) if "intra" in wanted.metrics else set()
    unseen = None if held_out is None else _finite(opened(held_out), num_samples)
    scorer = Scorer(_extractor(extractor), reference, wanted, accelerator, batch_size)
    others = []
    if unseen:
        others = _memorised_by(scorer, unseen)
        apart_by = others[1].compare(others[0].real)["fid"]

    scores, prints = _over_seeds(made, seeds, scorer, others, shared)
    assert reference.number is not None
    repeated = duplicates(prints, fingerprints_of(reference.draws(0), reference.number))
    stamp = scorer.stamp(seeds[0], made.name if run else "images")
    if made.drawn:
        stamp["labels"] = made.drawn
    if len(seeds) > 1:
        stamp["seed"] = list(seeds)
    if made.changed or reference.changed:
        stamp["changed"] = [made.changed, reference.changed]
    scored = {"hash": made.hash, "split": made.split, "changed": made.changed}
    record: Record = {
        "checkpoint": run[1] if run else "images",
        "step": made.step,
        "protocol": protocol if run and stated and exact else f"{num_samples} against {reference.number}",
        "fake": {"name": _name(fake, made), "images": digest(prints), **scored},
        "dimension": scorer.dimension,
        "stamp": stamp,
        "real": {"name": _name(real, reference), "changed": reference.changed},
        "scores": _mean(scores),
        "duplicates": repeated,
    }
    if made.seeded:
        record["fake"]["seeds"] = list(seeds)
    if unseen:
        record |= {"num_held_out": others[0].num_reference, "fid_apart": apart_by}
        record["held_out"] = {"name": _name(held_out, unseen), "hash": unseen.hash, "split": unseen.split}
    if floor:
        record |= _floor(scorer, spread=len(seeds) == 1)
    if "intra" in wanted.metrics and reference.labels is not None:
        record["num_classes"] = len(reference.labels[reference.labels >= 0].unique())
    if nearest:
        _draw_nearest(scorer, made.draws(seeds[0]), nearest)
    if accelerator.is_main_process:
        _keep(record, output, run[0] if run else None)
    return record


def score_and_print(
    fake: str,
    real: str | None = None,
    extractor: ExtractorConfig = Inception(),  # noqa: B008
    held_out: str | None = None,
    against: Path | None = None,
    **options: Any,
) -> None:
    """Score images, or those of a generator, against real ones, and say how much of the score is noise.

    Args:
        fake: what to score: RUN or RUN:CHECKPOINT (last, best, or a step), a data set as NAME or NAME:SPLIT, a folder
            or a zip of images, an .npy or .npz of uint8 images, a generator as TorchScript, or module:function, which
            maps (start, stop) to images start to stop - 1
        real: what to compare it with; null: the data set a run was trained on, by the protocol's split
        extractor: source of the features: Inception, Fidelity (any of torch-fidelity's networks), Torchvision
            (any of its classifiers), or Classifier (a run of mmgan train-cls)
        held_out: real images that the generator has not seen, to tell whether it has memorised `real`
        against: another run, already scored by the same protocol, to print next to this one
        options: all other options are those of mmgan.score
    """
    if against and not (named_run(fake) and (against / "config.yaml").is_file()):
        raise UserError(f"against compares two runs, and one of {fake} and {against} is none")
    record = score(fake, real, extractor, held_out=held_out, **options)
    others = [records.beside(record, against)] if against else []
    PartialState().print(records.summary(record, *others))


score_and_print.__annotations__ = score.__annotations__ | score_and_print.__annotations__  # so that errors name types


def _check_options(
    protocol: Any, metrics: Any, seeds: Any, channels: Any, nearest: Path | None, counts: Mapping[str, int | None]
) -> None:
    """Raise UserError for an option that no images could be scored with."""
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol}")
    if not isinstance(metrics, str):
        raise UserError(f"metrics must be names separated by commas, not {metrics!r}")
    if not isinstance(seeds, Sequence):
        raise UserError(f"seeds must be a list, not {seeds!r}")
    for name, number in counts.items():
        if number is not None and number < 1:
            raise UserError(f"{name} must be positive, not {number}")
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError("seeds must be one or more whole numbers, all different")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 or 3, not {channels}")
    if nearest and nearest.suffix != ".png":
        raise UserError(f"nearest must end in .png, not {nearest}")


def _shared(made: Source, seeds: Sequence[int], n: int, reference: Source) -> set[int]:
    """The classes that the images for every seed share with the reference; raises UserError if there are none."""
    labels = [labels_of(made, seed, n) for seed in seeds]
    if labels[0] is not None and made.classes != reference.classes:
        raise UserError("intra: the class folders of both sets must have the same names, or classes must be numbers")
    shared = set.intersection(*(set(shared_classes(one, reference.labels)) for one in labels))
    if not shared:
        raise UserError(NO_CLASS)
    return shared


def _over_seeds(
    made: Source, seeds: Sequence[int], scorer: Scorer, others: Sequence[Scorer], shared: set[int]
) -> tuple[list[dict[str, float]], Tensor]:
    """The scores for every seed, and the fingerprints of the first one's images, int64 [num_samples].

    Of images with labels, those in `shared` classes are compared class by class; `others`: as for `_memory`.
    """
    n, scores, prints = scorer.protocol.num_samples, [], []
    for seed in seeds:
        draw = Remembered(made.draws(seed), n, scorer.accelerator.device)
        extracted, labels = scorer.extracted(draw), labels_of(made, seed, n)
        if labels is not None:
            labels = torch.where(torch.isin(labels, torch.tensor(sorted(shared), dtype=torch.int64)), labels, -1)
        scores.append(scorer.compare(extracted, labels) | _memory(others, extracted))
        prints.append(draw.of_all())
    return scores, prints[0]


def _extractor(extractor: Networks) -> Extractor:
    if isinstance(extractor, ExtractorConfig):
        return extractor.build()
    if isinstance(extractor, nn.Module):
        return of_module(extractor)
    if not isinstance(extractor, Extractor):
        raise UserError(f"extractor must be one of mmgan.extractors or a module, not {extractor!r}")
    return extractor


def _own_of(run: Path, protocol: Protocol, accelerator: Accelerator, trust: bool, given: Mapping[str, Any]) -> Source:
    """The images of a run's own data set; `given` has options of it that replace the run's where they are set."""
    data = config_of(GANConfig, run / "config.yaml", trust).data
    with _named_as_here():
        changed = replace(data, **{key: value for key, value in given.items() if value})
        return reference_of(changed, protocol, accelerator)


@contextmanager
def _named_as_here() -> Iterator[None]:
    """Name options of data sets in errors as `score` does."""
    try:
        yield
    except UserError as error:
        words = re.sub(r"\bdata\.resolution\b", "resize", str(error))
        raise UserError(re.sub(r"\bdata\.(?=(root|download|skip_broken|split)\b)", "", words)) from error


def _open(
    images: Images,
    accelerator: Accelerator,
    data: DataConfig,
    resize: int | None,
    weights: Literal["auto", "raw", "ema"],
    z_dim: int | None,
    trust: bool,
) -> Source:
    """The source that `images` are or name; a folder's images are resized to `resize` during decoding."""
    if isinstance(images, Tensor | np.ndarray):
        found = torch.as_tensor(images).cpu()
        if found.dtype != torch.uint8 or found.ndim != 4 or found.shape[1] not in (1, 3) or not len(found):
            raise UserError(f"images must be uint8 [N, 1 or 3, H, W], not {found.dtype} {list(found.shape)}")
        return of(found, "tensor")
    if not isinstance(images, str | Path):
        if not callable(images):
            raise UserError(f"images must be a name, a tensor or a function, not {type(images).__name__}")
        return of_draw(images, getattr(images, "__qualname__", type(images).__name__))
    with _named_as_here():
        return open_source(str(images), accelerator, data, resize, weights, z_dim, trust)


def _name(images: Images | None, source: Source) -> str:
    return str(images) if isinstance(images, str | Path) else source.name


def _writable(file: Path | None, option: str) -> None:
    """Raise UserError for a file that cannot be written, before its contents are computed."""
    if file:
        with files.writing(file, option):
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=file.parent):
                pass


def _finite(source: Source, n: int) -> Source:
    """A set of images unchanged, or the first `n` images of a generator."""
    if source.number is not None:
        return source
    return first(source, n, REAL_SEED, digest(fingerprints_of(source.draws(REAL_SEED), n)))


def _check_sizes(made: Source, real: Source) -> None:
    """Raise UserError for images that cannot be compared; warn about differences in format that affect the score."""
    if made.shape[1:] != real.shape[1:]:
        sizes = " with ".join(f"{width}x{height}" for _, height, width in (made.shape, real.shape))
        raise UserError(f"images of {sizes} pixels cannot be compared; set resize, which the record will state")
    if made.shape[0] != real.shape[0]:
        raise UserError(
            f"images of {made.shape[0]} and {real.shape[0]} channels cannot be compared; set channels, which the "
            "record will state"
        )
    for one, other, what, which in ((made, real, "images scored", "real ones"), (real, made, "real images", "others")):
        if not one.kinds:
            continue
        if (lossy := one.kinds.formats["JPEG"]) and not (other.kinds and other.kinds.formats["JPEG"]):
            warnings.warn(
                f"{lossy} of {_files(one)} of the {what} are JPEG and none of the {which}: JPEG artefacts count as a "
                "difference and raise FID, the more so the lower the quality",
                stacklevel=3,
            )
        if alpha := one.kinds.alpha:
            warnings.warn(
                f"{alpha} of {_files(one)} of the {what} are transparent and are shown on white: if the {which} are "
                "not, FID counts that as a difference",
                stacklevel=3,
            )
    ways = [
        "Lanczos" if "Lanczos" in source.changed else "bilinear"
        for source in (made, real)
        if "Lanczos" in source.changed or "bilinear" in source.changed
    ]
    if len(set(ways)) > 1:
        warnings.warn(
            f"the images scored are resized with a {ways[0]} filter and the real ones with a {ways[1]} one, which FID "
            "counts as a difference; resize both with the same program",
            stacklevel=3,
        )
    grey = [_grey(source) for source in (made, real)]
    if grey[0] != grey[1]:
        which = "images scored are grey and the real ones" if grey[0] else "real images are grey and those scored"
        warnings.warn(f"the {which} are coloured: FID counts that as a difference", stacklevel=3)


def _files(source: Source) -> str:
    total = source.kinds.formats.total() if source.kinds else 0
    return f"{total} files" if total == source.number else f"the first {total} files"


def _grey(source: Source) -> bool:
    """Whether the first images are grey."""
    images = source.draws(0)(0, min(source.number or 64, 64))
    return bool((images == images[:, :1]).all())


def _memorised_by(scorer: Scorer, held_out: Source) -> list[Scorer]:
    """Scorers of FID to images of the reference, and to equally many held-out ones."""
    real = scorer.reference
    assert real.number is not None
    assert held_out.number is not None
    _check_sizes(held_out, real)
    n = min(real.number, held_out.number)
    of_fid = replace(scorer.protocol, metrics=("fid",))
    pair = (apart(source, n)[0] if n < (source.number or 0) else source for source in (real, held_out))
    return [Scorer(scorer.extractor, source, of_fid, scorer.accelerator, scorer.batch_size) for source in pair]


def _memory(others: Sequence[Scorer], made: Features) -> dict[str, float]:
    """`fid_train` and `fid_held_out`, to equally many images, and `fid_gap`, the first minus the second."""
    if not others:
        return {}
    train, held_out = (other.compare(made)["fid"] for other in others)
    return {"fid_train": train, "fid_held_out": held_out, "fid_gap": train - held_out}


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over seeds, with NAME_std, their standard deviation, if there are several."""
    if len(scores) == 1:
        return scores[0]
    names = [name for name in scores[0] if not name.endswith("_std")]
    spread = {f"{name}_std": statistics.stdev(one[name] for one in scores) for name in names}
    return {name: statistics.fmean(one[name] for one in scores) for name in names} | spread


def _floor(scorer: Scorer, spread: bool) -> dict[str, Any]:
    """Scores of `num_floor` real images (as many as samples, at most half) against the others; empty if too few.

    `spread`: include the deviations of single scores, which are not deviations over seeds.
    """
    real = scorer.reference
    assert real.number is not None
    n = min(scorer.protocol.num_samples, real.number // 2)
    if n < LEAST["is"]:
        return {}
    some, others = apart(real, n)
    metrics = scorer.protocol.metrics
    if not shared_classes(some.labels, others.labels):
        metrics = [metric for metric in metrics if metric != "intra"]
    if not metrics:
        return {}
    by = replace(scorer.protocol, num_samples=n, metrics=metrics)
    against = Scorer(scorer.extractor, others, by, scorer.accelerator, scorer.batch_size)
    found = against.floor(some)
    found = found if spread else {name: score for name, score in found.items() if not name.endswith("_std")}
    return {"floor": found, "num_floor": n}


def _draw_nearest(scorer: Scorer, draw: Draw, file: Path) -> None:
    if found := scorer.nearest(draw, min(SHOWN, scorer.protocol.num_samples)):
        gap = torch.full_like(found.samples[:, None], 128)
        rows = torch.cat([found.samples[:, None], gap, found.images], 1)
        with files.writing(file, "--nearest"):
            save_grid(rows.flatten(0, 1), file, rows.shape[1])


def _keep(record: Record, output: Path | None, run: Path | None) -> None:
    if output:
        with files.writing(output):
            files.write(output, json.dumps(record, indent=1) + "\n")
    elif run:
        records.keep(run, record)
