"""Scores of generated images against real ones, on any number of processes."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Collection
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm import tqdm

from mmgan.engine.modes import threads
from mmgan.errors import UserError
from mmgan.scoring import cache
from mmgan.scoring.density import density_coverage
from mmgan.scoring.extractors import Extractor
from mmgan.scoring.moments import Moments
from mmgan.scoring.protocol import Metric, Protocol
from mmgan.scoring.source import Draw, Source

IS_SPLITS, KID_SUBSETS, KID_SUBSET_SIZE, PRC_NEIGHBOURS, RNG_SEED = 10, 100, 1000, 3, 2020
"""torch-fidelity's defaults."""
NO_CLASS = "intra: the two sets of images have no class of which both have two, or no labels"
DC_NEIGHBOURS = 5
"""For density and coverage, as in the README of its authors."""
LEAST: dict[Metric, int] = {"is": IS_SPLITS, "fid": 2, "kid": 2, "intra": 2}
LEAST |= {"prc": PRC_NEIGHBOURS + 1, "dc": DC_NEIGHBOURS + 1}
"""The smallest number of images for a meaningful score."""
FEATURES: set[Metric] = {"kid", "prc", "dc", "intra"}
"""Metrics that need individual features."""
NEAREST: tuple[Metric] = ("kid",)
"""A metric with the same needs as nearest images: individual features."""
NEEDS: dict[Metric, str] = {"fid": "moments", "kid": "features", "is": "logits"}
"""The metric to request from `extract` for each part of `Features`."""


class Features(NamedTuple):
    """Features used to compare images; a part is None if no metric needs it."""

    moments: dict[str, Tensor] | None
    """`mean` [d] and `covariance` [d, d], float64."""
    features: Tensor | None
    """float32 [N, d], in the order of the images."""
    logits: Tensor | None
    """float32 [N, K], in the order of the images."""


class Nearest(NamedTuple):
    """Samples and the real images with the nearest features, to see whether a generator has memorised them."""

    samples: Tensor
    """uint8 [M, C, H, W]."""
    images: Tensor
    """Real images, uint8 [M, K, C, H, W], nearest first, by Euclidean distance between features."""


class Scorer:
    """Scores by one protocol, with one extractor, against one set of real images."""

    def __init__(
        self,
        extractor: Extractor,
        real: Source,
        protocol: Protocol,
        accelerator: Accelerator,
        batch_size: int = 256,
    ) -> None:
        """`real`: all real images, of the same size as the samples.

        Their statistics are computed here or read from the cache. Raises UserError if scoring is impossible.
        """
        assert real.number is not None
        self.extractor, self.reference, self.protocol = extractor, real, protocol
        self.accelerator, self.batch_size = accelerator, batch_size
        extractor.module.to(accelerator.device)
        self.num_reference, self.shape = real.number, real.shape
        for metric in protocol.metrics:
            if metric != "is" and real.number < LEAST[metric]:
                found = f"{real.number} ({' '.join(filter(None, (real.split, 'images of', real.name)))})"
                raise UserError(f"{metric} needs at least {LEAST[metric]} real images, not {found}")
        if extractor.shape not in (None, self.shape):
            raise UserError(
                f"the extractor {extractor.name} needs images of {_size(extractor.shape)}, not {_size(self.shape)}: "
                "train one on images of that size"
            )
        noise = torch.randint(256, (2, *self.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        features, logits = extractor(noise.to(accelerator.device))
        if "is" in protocol.metrics and logits is None:
            raise UserError(f"{extractor.name} has no classes, which IS needs; remove is from metrics")
        self.probe = features.cpu()  # detects cached statistics of another network with the same weights
        self.real = self._cached(real, protocol.metrics)

    def stamp(self, seed: int, generator: str) -> dict[str, Any]:
        """Everything a score depends on except the generator's weights; scores with equal stamps are comparable."""
        protocol = self.protocol
        return {
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "preprocessing": self.extractor.preprocessing,
            "data": self.reference.name,
            **protocol.facts,
            "num_reference": self.num_reference,
            "reference_hash": self.reference.hash,
            "resolution": self.shape[-1],
            "seed": seed,
            "generator": generator,
            "is_splits": IS_SPLITS,
            "kid": [KID_SUBSETS, self._kid_size(protocol.num_samples, self.num_reference)],
            "prc_neighbours": PRC_NEIGHBOURS,
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "torch-fidelity", "numpy")},
        }

    @property
    def dimension(self) -> int | None:
        """Dimension of the features; None if FID is not among the metrics, and on processes other than the main one."""
        return len(self.real.moments["mean"]) if self.real.moments else None

    def score(self, draw: Draw) -> dict[str, float]:
        """Scores, by the requested metrics, of the images that `draw` makes.

        They are `is`, `is_std`, `fid`, `kid`, `kid_std`, `precision`, `recall`, `density`, `coverage` and, with
        `labels`, int64 [N], `fid/CLASS` and their mean `intra_fid`. `kid_std` is left out if either set is no larger
        than a subset. Apart from rounding, scores do not depend on the batch size or the number of processes.
        Raises UserError if images or features cannot be scored.
        """
        return self.compare(self.extracted(draw))

    def extracted(self, draw: Draw) -> Features:
        """The features that `compare` needs from images made by `draw`; each process extracts a share of them."""
        protocol, work = self.protocol, "scoring samples"
        made = self._extract(draw, protocol.drawn, protocol.metrics, work, protocol.num_samples)
        if made.features is not None:
            made = made._replace(features=made.features[: self.protocol.num_samples])
        if made.logits is not None:
            made = made._replace(logits=made.logits[: self.protocol.for_is])
        return made

    def floor(self, real: Source) -> dict[str, float]:
        """The same scores for real images outside the reference: those that a perfect model would get."""
        assert real.number is not None
        metrics = [metric for metric in self.protocol.metrics if real.number >= LEAST[metric]]
        return self.compare(self._cached(real, metrics, logits=True), real.labels)

    def nearest(self, draw: Draw, samples: int) -> Nearest | None:
        """The first `samples` images from `draw`, and their five nearest neighbours in the reference.

        All processes must call this; only the main one gets the result.
        """
        made = self._extract(draw, samples, NEAREST, "nearest images", samples).features
        real = self._cached(self.reference, NEAREST).features
        if made is None or real is None:
            return None
        centre = real.double().mean(0)  # keeps distances and avoids rounding
        distances = torch.cdist(made.double() - centre, real.double() - centre)
        found = distances.topk(min(5, len(real)), largest=False)
        show = self.reference.draws(0)
        images = torch.stack([torch.cat([show(row, row + 1) for row in rows]) for rows in found.indices.tolist()])
        return Nearest(draw(0, samples).cpu(), images.cpu())

    def _extract(self, draw: Draw, n: int, metrics: Collection[Metric], what: str, moments_of: int) -> Features:
        return extract(self.extractor, draw, n, metrics, self.accelerator, self.batch_size, moments_of, what)

    def compare(self, made: Features, labels: Tensor | None = None) -> dict[str, float]:
        """Scores of `made` against the reference; computed on the main process and sent to all.

        Raises UserError if the FID of each class is requested, but no class has two images in both sets.
        """
        if "intra" in self.protocol.metrics and not shared_classes(labels, self.reference.labels):
            raise UserError(NO_CLASS)
        found: list[dict[str, float]] = [{}]
        if self.accelerator.is_main_process:
            alone = self.accelerator.num_processes > 1  # the other processes only wait
            with threads(os.cpu_count() or 1) if alone else nullcontext():
                found = [self._numbers(made, labels)]
        return broadcast_object_list(found)[0]

    def _numbers(self, made: Features, labels: Tensor | None) -> dict[str, float]:
        """torch-fidelity's scores, from float64 features because they measure differences of large numbers."""
        from torch_fidelity.metric_fid import fid_statistics_to_metric  # noqa: PLC0415  # takes a second to import
        from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: PLC0415
        from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: PLC0415

        scores: dict[str, float] = {}
        if made.logits is not None:
            logits = made.logits.double()
            # Avoids the logarithm of 0 for classes without images: they keep a probability of exp(-700).
            logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-700)
            isc = isc_features_to_metric(logits, IS_SPLITS, shuffle=True, rng_seed=RNG_SEED)
            scores |= {"is": isc["inception_score_mean"], "is_std": isc["inception_score_std"]}
        if made.moments and self.real.moments:
            fid = fid_statistics_to_metric(_arrays(made.moments), _arrays(self.real.moments), verbose=False)
            scores["fid"] = fid["frechet_inception_distance"]
        if made.features is not None and self.real.features is not None:
            x, y = made.features.double(), self.real.features.double()
            centre = y.mean(0)  # keeps distances and avoids rounding
            if "kid" in self.protocol.metrics:
                scores |= self._kid(x, y)
            if "prc" in self.protocol.metrics:
                prc = prc_features_to_metric(
                    x - centre,
                    y - centre,
                    prc_neighborhood=PRC_NEIGHBOURS,
                    save_cpu_ram=True,
                    prc_batch_size=5000,
                    verbose=False,
                )
                scores |= {"precision": prc["precision"], "recall": prc["recall"]}
            if "intra" in self.protocol.metrics and labels is not None and self.reference.labels is not None:
                scores |= intra_fid(x, labels[: len(x)], y, self.reference.labels)
            if "dc" in self.protocol.metrics:
                scores |= density_coverage(x - centre, y - centre, DC_NEIGHBOURS)
        return scores

    def _kid(self, made: Tensor, real: Tensor) -> dict[str, float]:
        """The mean over subsets and, if both sets are larger than a subset, its spread.

        A set no larger than a subset is used whole: the mean is still unbiased and uses all its images, but the spread
        would not reflect how few they are.
        """
        from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415

        size = self._kid_size(len(made), len(real))
        subsets = 1 if size == len(made) == len(real) else KID_SUBSETS
        options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": RNG_SEED, "verbose": False}
        kid = kid_features_to_metric(made, real, **options)
        spread = {"kid_std": kid["kernel_inception_distance_std"]} if size < min(len(made), len(real)) else {}
        return {"kid": kid["kernel_inception_distance_mean"], **spread}

    def _of_this_network(self, probe: Tensor) -> bool:
        return probe.shape == self.probe.shape and bool((probe - self.probe).norm() <= 0.01 * self.probe.norm())

    @staticmethod
    def _kid_size(made: int, real: int) -> int:
        return min(KID_SUBSET_SIZE, made, real)

    def _cached(self, real: Source, metrics: Collection[Metric], logits: bool = False) -> Features:
        """Features of real images, from the cache if available; logits only if requested."""
        assert real.number is not None
        wanted = {"moments": "fid" in metrics, "features": bool(FEATURES & set(metrics))}
        wanted["logits"] = logits and "is" in metrics
        facts = {"images": real.hash, "extractor": self.extractor.hash, "preprocessing": self.extractor.preprocessing}
        files = {kind: cache.path({**facts, "kind": kind}) for kind, want in wanted.items() if want}
        kept: dict[str, dict[str, Tensor]] = {}
        if self.accelerator.is_main_process:
            for kind, file in files.items():
                if (tensors := cache.read(file)) and self._of_this_network(tensors.pop("probe", torch.zeros(0))):
                    kept[kind] = tensors
        missing = broadcast_object_list([[kind for kind in files if kind not in kept]])[0]
        if missing:
            asked = [metric for metric, kind in NEEDS.items() if kind in missing]
            made = self._extract(real.draws(0), real.number, asked, "features of real images", real.number)
            if self.accelerator.is_main_process:
                for kind in missing:
                    part = getattr(made, kind)
                    kept[kind] = part if isinstance(part, dict) else {kind: part}
                    cache.write(files[kind], kept[kind] | {"probe": self.probe})
        return Features(kept.get("moments"), *(kept.get(kind, {}).get(kind) for kind in ("features", "logits")))


def intra_fid(made: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> dict[str, float]:
    """FID of each class with at least two images in both sets, `fid/CLASS`, and their mean, `intra_fid`.

    Features are float64, [M, d] with labels [M] and [N, d] with [N]; label -1 means no class.
    """
    from torch_fidelity.metric_fid import fid_statistics_to_metric  # noqa: PLC0415  # takes a second to import

    found: dict[str, float] = {}
    for one in shared_classes(labels, real_labels):
        both = [rows[own == one] for rows, own in ((made, labels), (real, real_labels))]
        moments = [{"mu": rows.mean(0).numpy(), "sigma": rows.T.cov().numpy()} for rows in both]
        found[f"fid/{one}"] = fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
    return found | {"intra_fid": sum(found.values()) / len(found)}


def shared_classes(labels: Tensor | None, real_labels: Tensor | None) -> list[int]:
    """Classes with at least two images in both sets; none if either has no labels."""
    if labels is None or real_labels is None:
        return []
    often = [values[counts > 1] for values, counts in (x.unique(return_counts=True) for x in (labels, real_labels))]
    return [one for one in often[1].tolist() if one >= 0 and one in often[0].tolist()]


def extract(
    extractor: Extractor,
    draw: Draw,
    n: int,
    metrics: Collection[Metric],
    accelerator: Accelerator,
    batch_size: int,
    moments_of: int | None = None,
    what: str | None = None,
) -> Features:
    """Features of images 0 to n - 1; each process extracts a share of them and receives all.

    Only what `metrics` need is computed; moments are those of the first `moments_of` images (None: all). `what` labels
    the progress bar on the main process's terminal. Raises UserError for features that are not finite.
    """
    world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    shares = [range(n * r // world, n * (r + 1) // world) for r in range(world)]
    kept: dict[str, list[Tensor]] = {"features": [], "logits": []}
    moments: Moments | None = None
    hidden = None if what and accelerator.is_main_process else True
    mine = shares[rank]
    starts = range(mine.start, max(mine.stop, mine.start + 1), batch_size)
    with tqdm(total=len(mine), unit="image", desc=what, leave=False, disable=hidden) as bar:
        for start in starts:  # a process without images still passes one for its shape
            images = draw(start, max(start + 1, min(start + batch_size, mine.stop)))
            features, logits = extractor(images.to(device, non_blocking=True))
            features = features[: len(mine)]
            if "fid" in metrics:
                moments = moments or Moments(features.shape[1], device)
                moments.add(features if moments_of is None else features[: max(0, moments_of - start)])
            if FEATURES & set(metrics):
                kept["features"].append(features)
            if "is" in metrics:
                assert logits is not None, "IS needs logits"
                kept["logits"].append(logits[: len(mine)])
            bar.update(len(features))
    whole = {name: _gather(torch.cat(parts), shares, accelerator) if parts else None for name, parts in kept.items()}
    if moments is not None:
        moments.over_processes(accelerator)
    parts = [*whole.values(), moments.outer if moments else None]
    if any(part is not None and not part.isfinite().all() for part in parts):
        raise UserError("the images' features are not finite: the generator or the extractor has diverged")
    both = {"mean": moments.mean, "covariance": moments.covariance} if moments is not None else None
    return Features(both, whole["features"], whole["logits"])


def _gather(part: Tensor, shares: list[range], accelerator: Accelerator) -> Tensor:
    """Rows of all processes in the order of the images, on the CPU."""
    if len(shares) == 1:
        return part.cpu()
    longest = max(len(share) for share in shares)
    padded = torch.cat([part, part.new_zeros(longest - len(part), part.shape[1])])
    rows = accelerator.gather(padded).cpu().split(longest)
    return torch.cat([row[: len(share)] for row, share in zip(rows, shares, strict=True)])


def _size(shape: Any) -> str:
    return "x".join(map(str, shape))


def _arrays(moments: dict[str, Tensor]) -> dict[str, Any]:
    return {"mu": moments["mean"].numpy(), "sigma": moments["covariance"].numpy()}
