"""Scores of generated images against real ones, on any number of processes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm import tqdm

from mmgan.data import DataConfig, load
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.scoring import cache
from mmgan.scoring.extractors import Extractor
from mmgan.scoring.moments import Moments
from mmgan.scoring.protocol import Metric, Protocol

Draw = Callable[[int, int], Tensor]
"""Images number `start` to `stop` - 1: uint8 [stop - start, C, R, R]."""
IS_SPLITS, KID_SUBSETS, KID_SUBSET_SIZE, PRC_NEIGHBOURS, RNG_SEED = 10, 100, 1000, 3, 2020
"""torch-fidelity's defaults."""
LEAST: dict[Metric, int] = {"is": IS_SPLITS, "fid": 2, "kid": 2, "prc": PRC_NEIGHBOURS + 1}
"""Images without which a score means nothing."""
NEEDS: dict[Metric, str] = {"fid": "moments", "kid": "features", "is": "logits"}
"""What to ask `extract` for, to have a part of `Features`."""


class Features(NamedTuple):
    """What images are compared by; a part is None where no metric asks for it."""

    moments: dict[str, Tensor] | None
    """`mean` [d] and `covariance` [d, d], float64."""
    features: Tensor | None
    """float32 [N, d], in the order of the images."""
    logits: Tensor | None
    """float32 [N, K], in the order of the images."""


class Scorer:
    """Scores by one protocol, with one extractor, against one set of real images."""

    def __init__(
        self,
        extractor: Extractor,
        data: DataConfig,
        protocol: Protocol,
        accelerator: Accelerator,
        batch_size: int = 256,
    ) -> None:
        """`data` names the real images; its split is taken from `protocol`, its resolution must be that of the samples.

        Statistics of the real images are computed here, or come from the cache. Raises UserError for data that cannot
        be had.
        """
        self.extractor, self.data, self.protocol = extractor, data, protocol
        self.accelerator, self.batch_size = accelerator, batch_size
        extractor.module.to(accelerator.device)
        real, self.real_hash = self._real(protocol.reference, protocol.num_reference)
        self.num_reference, self.shape = len(real), tuple(real.shape[1:])
        for metric in protocol.metrics:
            if metric != "is" and len(real) < LEAST[metric]:
                found = f"{len(real)} ({protocol.reference} images of {data.name})"
                raise UserError(f"{metric} needs at least {LEAST[metric]} real images, not {found}")
        if extractor.shape not in (None, self.shape):
            raise UserError(
                f"the extractor {extractor.name} takes images of {_size(extractor.shape)}, not {_size(self.shape)}: "
                "train one on images of that size"
            )
        self.real = self._cached(real, self.real_hash, protocol.metrics)

    def stamp(self, seed: int, generator: str) -> dict[str, Any]:
        """All that a score depends on besides the generator's weights: what makes two scores comparable."""
        protocol = self.protocol
        return {
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "preprocessing": self.extractor.preprocessing,
            "data": self.data.name,
            **protocol.facts,
            "num_reference": self.num_reference,
            "reference_hash": self.real_hash,
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
        """Of the features; None where FID is not asked for, and on other processes than the main one."""
        return len(self.real.moments["mean"]) if self.real.moments else None

    def score(self, draw: Draw) -> dict[str, float]:
        """`is`, `is_std`, `fid`, `kid`, `kid_std`, `precision`, `recall`, those asked for, of the images `draw` makes.

        `kid_std` is left out where one of the two sets is no larger than a subset. The same for any batch size and
        number of processes, but for rounding. Raises UserError when they or their features cannot be scored.
        """
        protocol, work = self.protocol, "scoring samples"
        made = self._extract(draw, protocol.drawn, protocol.metrics, work, protocol.num_samples)
        if made.features is not None:
            made = made._replace(features=made.features[: self.protocol.num_samples])
        if made.logits is not None:
            made = made._replace(logits=made.logits[: self.protocol.for_is])
        return self._compare(made)

    def floor(self) -> tuple[dict[str, float], int] | None:
        """The same scores of real images that are not in the reference, and their number: what a perfect model gets.

        They are the test split's, at most as many as samples; None where the reference is that split or there is none.
        """
        if self.protocol.reference == "test":
            return None
        try:
            real, content = self._real("test", self.protocol.num_samples)
        except UserError:
            return None
        metrics = [metric for metric in self.protocol.metrics if len(real) >= LEAST[metric]]
        return self._compare(self._cached(real, content, metrics, logits=True)), len(real)

    def _extract(self, draw: Draw, n: int, metrics: Collection[Metric], what: str, moments_of: int) -> Features:
        return extract(self.extractor, draw, n, metrics, self.accelerator, self.batch_size, moments_of, what)

    def _compare(self, made: Features) -> dict[str, float]:
        """Scores of `made` against the reference; computed on the main process, known to all."""
        found: list[dict[str, float]] = [{}]
        if self.accelerator.is_main_process:
            found = [self._numbers(made)]
        return broadcast_object_list(found)[0]

    def _numbers(self, made: Features) -> dict[str, float]:
        """torch-fidelity's scores; of features in float64, for differences of large numbers are what they measure."""
        from torch_fidelity.metric_fid import fid_statistics_to_metric  # noqa: PLC0415  # takes a second to import
        from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: PLC0415
        from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: PLC0415

        scores: dict[str, float] = {}
        if made.logits is not None:
            logits = made.logits.double()
            # A class that no image is of would have the logarithm of 0: it keeps a probability of exp(-700).
            logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-700)
            isc = isc_features_to_metric(logits, IS_SPLITS, shuffle=True, rng_seed=RNG_SEED)
            scores |= {"is": isc["inception_score_mean"], "is_std": isc["inception_score_std"]}
        if made.moments and self.real.moments:
            fid = fid_statistics_to_metric(_arrays(made.moments), _arrays(self.real.moments), verbose=False)
            scores["fid"] = fid["frechet_inception_distance"]
        if made.features is not None and self.real.features is not None:
            x, y = made.features.double(), self.real.features.double()
            if "kid" in self.protocol.metrics:
                scores |= self._kid(x, y)
            if "prc" in self.protocol.metrics:
                centre = y.mean(0)  # distances stay, and are not rounded by it
                prc = prc_features_to_metric(
                    x - centre,
                    y - centre,
                    prc_neighborhood=PRC_NEIGHBOURS,
                    save_cpu_ram=True,
                    prc_batch_size=5000,
                    verbose=False,
                )
                scores |= {"precision": prc["precision"], "recall": prc["recall"]}
        return scores

    def _kid(self, made: Tensor, real: Tensor) -> dict[str, float]:
        """The mean over subsets, and its spread where subsets are drawn of both sets: of a whole set all are the same.

        A set that is no larger than a subset is taken whole: the mean is then without bias as ever, and of all its
        images, but the spread would say nothing of how few they are.
        """
        from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415

        size = self._kid_size(len(made), len(real))
        subsets = 1 if size == len(made) == len(real) else KID_SUBSETS
        options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": RNG_SEED, "verbose": False}
        kid = kid_features_to_metric(made, real, **options)
        spread = {"kid_std": kid["kernel_inception_distance_std"]} if size < min(len(made), len(real)) else {}
        return {"kid": kid["kernel_inception_distance_mean"], **spread}

    @staticmethod
    def _kid_size(made: int, real: int) -> int:
        return min(KID_SUBSET_SIZE, made, real)

    def _real(self, split: str, count: int | None) -> tuple[Tensor, str]:
        """Real images of a split, and their hash: `count` of them, drawn once and for all, or all."""
        problem = None
        with self.accelerator.local_main_process_first():
            try:
                images = load(replace(self.data, split=split)).images
            except UserError as error:  # raised when all processes are past the barrier
                problem = UserError(f"reference {split}: {error}")
        if problem:
            raise problem
        if count is not None and count < len(images):
            images = images[torch.randperm(len(images), generator=stream(0, "reference", 0))[:count].sort().values]
        return images, cache.content_hash(images)

    def _cached(self, real: Tensor, content: str, metrics: Collection[Metric], logits: bool = False) -> Features:
        """Features of real images, from the cache where they are there; logits only where asked for."""
        wanted = {"moments": "fid" in metrics, "features": bool({"kid", "prc"} & set(metrics))}
        wanted["logits"] = logits and "is" in metrics
        facts = {"images": content, "extractor": self.extractor.hash, "preprocessing": self.extractor.preprocessing}
        files = {kind: cache.path({**facts, "kind": kind}) for kind, want in wanted.items() if want}
        kept: dict[str, dict[str, Tensor]] = {}
        if self.accelerator.is_main_process:
            kept = {kind: tensors for kind, file in files.items() if (tensors := cache.read(file)) is not None}
        missing = broadcast_object_list([[kind for kind in files if kind not in kept]])[0]
        if missing:
            asked = [metric for metric, kind in NEEDS.items() if kind in missing]
            made = self._extract(lambda a, b: real[a:b], len(real), asked, "features of real images", len(real))
            if self.accelerator.is_main_process:
                for kind in missing:
                    part = getattr(made, kind)
                    kept[kind] = part if isinstance(part, dict) else {kind: part}
                    cache.write(files[kind], kept[kind])
        return Features(kept.get("moments"), *(kept.get(kind, {}).get(kind) for kind in ("features", "logits")))


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
    """Features of images 0 to n - 1, each process a share of them; whole on every process.

    What `metrics` do not need is neither computed nor kept; moments are those of the first `moments_of` images (None:
    of all). `what` names the work to a progress bar, on the main process's terminal. Raises UserError for features
    that are not finite.
    """
    world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    shares = [range(n * r // world, n * (r + 1) // world) for r in range(world)]
    kept: dict[str, list[Tensor]] = {"features": [], "logits": []}
    moments: Moments | None = None
    hidden = None if what and accelerator.is_main_process else True
    mine = shares[rank]
    starts = range(mine.start, max(mine.stop, mine.start + 1), batch_size)
    with tqdm(total=len(mine), unit="image", desc=what, leave=False, disable=hidden) as bar:
        for start in starts:  # with more processes than images some have none, and one is passed for its shape
            images = draw(start, max(start + 1, min(start + batch_size, mine.stop)))
            features, logits = (part[: len(mine)] for part in extractor(images.to(device, non_blocking=True)))
            if "fid" in metrics:
                moments = moments or Moments(features.shape[1], device)
                moments.add(features if moments_of is None else features[: max(0, moments_of - start)])
            if {"kid", "prc"} & set(metrics):
                kept["features"].append(features)
            if "is" in metrics:
                kept["logits"].append(logits)
            bar.update(len(features))
    whole = {name: _gather(torch.cat(parts), shares, accelerator) if parts else None for name, parts in kept.items()}
    if moments is not None:
        moments.over_processes(accelerator)
    parts = [*whole.values(), moments.outer if moments else None]
    if any(part is not None and not part.isfinite().all() for part in parts):
        raise UserError("the images' features are not finite: the generator has diverged, or the extractor")
    found = {"mean": moments.mean, "covariance": moments.covariance} if moments is not None else None
    return Features(found, whole["features"], whole["logits"])


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
