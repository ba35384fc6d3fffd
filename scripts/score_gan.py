r"""Score a trained GAN: Inception Score, FID, KID, precision and recall, with the protocol they are measured by.

    accelerate launch scripts/score_gan.py runs/cifar10 --protocol train-50k
    python scripts/score_gan.py runs/digits --extractor Classifier --extractor.run runs/digits-classifier \
      --metrics is,fid,kid

Prints a table and keeps the scores, stamped with the protocol, in RUN/scores.json.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.data import DataChange
from mmgan.engine import cli
from mmgan.engine.checkpoint import of_run
from mmgan.engine.run import accelerator_of
from mmgan.errors import UserError
from mmgan.gan.score import score_run, summary
from mmgan.scoring import PROTOCOLS, ExtractorConfig, Inception, records
from mmgan.scoring.protocol import comparable


def score(
    run: Path,
    checkpoint: Literal["best", "last"] | int = "last",
    extractor: ExtractorConfig = Inception(),  # noqa: B008
    protocol: Literal["train-50k", "test-10k", "miyato", "paper"] = "train-50k",
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
    """Score a trained GAN by IS, FID, KID, precision and recall, and stamp the protocol on the scores.

    Args:
        run: folder of the run
        checkpoint: last, best (by the scores taken while training), or the step of one that was kept
        extractor: Inception (FID's own; --extractor.weights FILE), or Classifier: a run of scripts/train_cls.py on the
            same data (--extractor.run FOLDER)
        protocol: train-50k: 50,000 samples against the training set; test-10k: 10,000 against the test set; paper:
            50,000 against the test set, as its authors' code; miyato: 5,000 against 10,000 test images, IS of 50,000
        num_samples: another number of samples than the protocol's
        reference: another split of real images than the protocol's
        metrics: any of is, fid, kid and prc (precision and recall), with commas between
        weights: raw, ema (the average), or auto: ema where the run has one
        seed: seed of the latents; sample i depends on it and on i alone
        batch_size: images at once in each process
        against: another run, scored before by the same protocol, to print beside this one
        trust: let the run name classes that are not mmgan's own, which are then imported
        data: the run's images, where they have moved since: --data.root FOLDER
    """
    if batch_size < 1:
        raise UserError("batch_size must be positive")
    changes: dict[str, Any] = {"metrics": tuple(re.findall(r"\w+", metrics.lower()))}
    if num_samples is not None:
        changes |= {"num_samples": num_samples, "is_samples": None}
    if reference is not None:
        changes |= {"reference": reference, "num_reference": None}
    by = replace(PROTOCOLS[protocol], **changes)
    name = protocol if len(changes) == 1 else f"{protocol}, changed"
    of_run(run, checkpoint)  # a mistake in it is told before an extractor is fetched
    accelerator = accelerator_of()
    built = extractor.build()
    made = score_run(run, [checkpoint], built, by, name, accelerator, weights, seed, batch_size, trust, data)
    if not accelerator.is_main_process:
        return
    print(summary(made))
    if against:
        others = [other for other in records.read(against) if other["checkpoint"] == checkpoint]
        if not others:
            raise UserError(f"{against} holds no score of its {checkpoint} checkpoint; score it first")
        other = next((one for one in others if records.same(one, made[0])), others[-1])
        comparable(other["stamp"], made[0]["stamp"])
        print(records.table([(str(run), made[0]["scores"]), (str(against), other["scores"])]))


if __name__ == "__main__":
    cli.run(lambda: cli.call(score))
