"""Compare runs: measures, claims, curves and samples of GANs, classifiers and anything else a sweep ran.

    python scripts/report.py runs/figure9 --output runs/figure9-report

Takes runs, or folders of runs, finished or not. OUTPUT.md and OUTPUT/report.html are the page. OUTPUT/record.json
holds its numbers, from which scripts/pages.py regenerates it.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path

from mmgan.engine import cli
from mmgan.experiments import report as reports


def report(
    runs: list[Path],
    output: Path = Path("report"),
    protocol: str | None = None,
    baseline: str | None = None,
    title: str | None = None,
    about: str | None = None,
) -> None:
    """Compare runs: measures, claims, curves and samples of GANs, classifiers and anything else a sweep ran.

    Args:
        runs: runs, or folders of runs
        output: folder for report.html, which is self-contained, record.json, runs.csv and pictures; OUTPUT.md is
            written next to it
        protocol: protocol of the GAN scores to compare; default: the final one that their configurations name
        baseline: the arm to compare the others with; default: the experiment's, or the one called none, baseline,
            plain or supervised
        title: title of the page; default: the experiment's
        about: paragraph below the title; default: the experiment's
    """
    words = {key: text for key, text in (("title", title), ("about", about)) if text}
    record = reports.make(runs, output, cli.typed(), protocol, baseline, words)
    measured = sum(not one["unscored"] for one in record["runs"])
    print(f"{measured} of {len(record['runs'])} runs are measured; look at {output / 'report.html'}")


def main() -> None:
    """Parse and call."""
    cli.call(report)


if __name__ == "__main__":
    cli.run(main)
