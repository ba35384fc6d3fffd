"""Compare trained and scored GANs: Figure 9 of the paper, a table, statistics, diagnostics, samples.

    python scripts/report.py runs/figure9 --output runs/figure9-report

Takes runs, or folders of runs as scripts/sweep.py makes them, finished or not.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.arms import read
from mmgan.gan.report import write


def report(runs: list[Path], output: Path = Path("report"), protocol: str | None = None) -> None:
    """Compare trained and scored GANs: Figure 9 of the paper, a table, statistics, diagnostics, samples.

    Args:
        runs: runs, or folders of runs
        output: folder for report.html, which is complete in itself, pictures and runs.csv; OUTPUT.md is beside it
        protocol: by which scores to compare; default: the one that the runs were scored by at their end
    """
    settings, name = read(runs, protocol)
    command = f"python scripts/report.py {' '.join(map(str, runs))} --output {output}"
    try:
        write(settings, name, command + (f" --protocol {protocol}" if protocol else ""), output)
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}); choose another --output") from error
    for setting in settings:
        print(f"{setting.name or 'all runs'}: {sum(arm.scored for arm in setting.all)} scored runs")
    print(f"look at {output / 'report.html'}")


if __name__ == "__main__":
    cli.run(lambda: cli.call(report, folders="runs"))
