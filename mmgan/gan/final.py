"""The final scores of a GAN's run."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from mmgan.engine import checkpoint as checkpoints
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.score import score
from mmgan.scoring import PROTOCOLS, Extractor, records
from mmgan.scoring.protocol import FIRST


def final_scores(config: GANConfig, folder: Path, extractor: Extractor, accelerator: Accelerator) -> None:
    """Score a finished run's last and best checkpoint by its final protocol, unless already done, and print scores."""
    if config.score is None or config.score.final is None:
        return
    name, metrics = config.score.final, config.score.final_metrics
    steps = {"last": config.steps}
    try:
        steps["best"] = checkpoints.of_run(folder, "best").step
    except UserError as error:  # it has been damaged since
        accelerator.print(f"{error}; only the last one is scored")
    protocol = PROTOCOLS[name].of(metrics)
    ours = protocol.facts | {"extractor_hash": extractor.hash, "seed": 0, "generator": "ema" if config.ema else "raw"}
    made = {
        record["checkpoint"]: record
        for record in records.read(folder)
        if record["protocol"] == name
        and record["step"] == steps.get(record["checkpoint"])
        and ours.items() <= record["stamp"].items()
        and {FIRST[metric] for metric in protocol.metrics} <= record["scores"].keys()
    }
    for one in steps:
        if one not in made:
            made[one] = score(f"{folder}:{one}", None, extractor, name, metrics, trust=True)
    accelerator.print(records.summary(*(made[one] for one in steps)))
