"""What a GAN's run measures and saves during training, without affecting it: scores, samples, checkpoints."""

from __future__ import annotations

from typing import Any

from mmgan.data import Images, to_network
from mmgan.engine import checkpoint
from mmgan.engine.log import Log
from mmgan.engine.run import Run
from mmgan.gan.config import GANConfig
from mmgan.gan.data import DIAGNOSED
from mmgan.gan.diagnose import diagnose
from mmgan.gan.plot import plot_losses, plot_scores
from mmgan.gan.sample import generate, save_grid
from mmgan.gan.sources import draw
from mmgan.gan.steps import Steps
from mmgan.scoring import Scorer

GRID, COLUMNS = 100, 10
"""Images in a grid, and in a row of it; for a conditional GAN, the largest number of rows (one per class)."""


class Watch:
    """Called after every step, it does what is due."""

    def __init__(
        self,
        config: GANConfig,
        run: Run,
        steps: Steps,
        log: Log,
        scorer: Scorer | None,
        fresh: Images | None,
        facts: dict[str, Any],
        best: float,
    ) -> None:
        """`fresh`: real images not trained on; `facts`: what a checkpoint records about its images.

        `best`: the lowest FID so far; infinity before the first.
        """
        self.config, self.run, self.steps, self.log, self.scorer, self.facts = config, run, steps, log, scorer, facts
        self.main, self.gan, device = steps.accelerator.is_main_process, steps.gan, steps.accelerator.device
        if fresh and (classes := len(self.gan.inputs.names)):
            known = (fresh.labels >= 0) & (fresh.labels < classes)
            fresh = Images(fresh.images[known], fresh.labels[known]) if known.any() else None
        self.fresh = to_network(fresh.images.to(device)) if fresh else None
        self.fresh_labels = [fresh.labels.to(device)] if fresh else []
        self.best = best

    def __call__(self, step: int, stopped: bool) -> None:
        """Do what is due after `step`; a run that ends or is stopped saves a checkpoint."""
        config, last = self.config, step == self.config.steps
        score = config.score is not None and (step % config.score.every == 0 or last)
        sample = step % config.sample_every == 0 or last
        save = step % config.checkpoint_every == 0 or stopped or last
        if score or sample or save:
            self.gan.refresh()
        if score and self.scorer:
            self._score(step, self.scorer)
        if sample and self.main:
            self._sample(step)
        if save:
            self._save(step)

    def _score(self, step: int, scorer: Scorer) -> None:
        """Score samples, from the same latents in all runs; keep the checkpoint with the lowest FID in best/."""
        with self.gan.one_sampler() as sampler:
            scores = scorer.score(draw(sampler, self.gan.inputs, seed=0))
        self.log.record(step, {f"score/{name}": score for name, score in scores.items()})
        if scores["fid"] < self.best:
            self.best = scores["fid"]
            if self.main:
                checkpoint.save(self.run.best, step, self.gan.kept, self.facts | scores, keep=1)

    def _sample(self, step: int) -> None:
        """A grid of the same inputs every time, one row per class if there are any, and discriminator diagnostics."""
        seed, inputs, real, folder = self.config.seed, self.gan.inputs, self.steps.real, self.run.folder / "samples"
        made = generate(self.gan.sampler(), inputs(seed, 0, DIAGNOSED))
        grid = made[:GRID]
        if names := inputs.names[:GRID]:
            grid = generate(self.gan.sampler(), inputs.rows(seed, COLUMNS, names))
        if not (folder / "real.png").exists():
            shown = real.by_class(len(names), COLUMNS) if names else real.some(GRID)
            save_grid(shown, folder / "real.png", COLUMNS)
        self.log.picture(step, "samples", save_grid(grid, folder / f"step-{step:06d}.png", COLUMNS))
        shown = to_network(real.some(DIAGNOSED))
        made, fresh, classes = to_network(made[: len(shown)]), self.fresh, None
        if inputs.names:
            labels = [real.labels_of_some(DIAGNOSED), inputs.labels(seed, 0, len(shown)).to(made.device)]
            classes = [inputs.vectors(one) for one in (*labels, *self.fresh_labels)]
        self.log.record(step, *diagnose(self.gan.networks["discriminator"], shown, made, fresh, classes))

    def _save(self, step: int) -> None:
        """Save a checkpoint last: if anything before it fails, the resumed run repeats all of it."""
        state = self.gan.state() | self.facts | {"log": self.log.state(step), "best": self.best}
        if self.main:
            plot_losses(self.run.metrics, self.run.folder / "plots" / "losses.png")
            plot_scores(self.run.metrics, self.run.folder / "plots" / "scores.png")
            checkpoint.save(self.run.checkpoints, step, self.gan.kept, state, self.config.keep_checkpoints)
