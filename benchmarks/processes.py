"""Time two processes of one thread each against one process of one or two threads, and against two separate runs.

python benchmarks/processes.py --g_width 64 --d_width 32
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from gan import make_steps, step
from timing import Times, report

from mmgan.engine import cli
from mmgan.gan.config import GANConfig
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator

LAUNCHES = {"one": (1, 1, 1), "threads": (1, 2, 1), "processes": (2, 1, 1), "apart": (1, 1, 2)}
"""Processes, threads of each, and runs side by side, among which a batch is divided."""


def processes(
    resolution: int = 32,
    g_width: int = 64,
    d_width: int = 32,
    batch_size: int = 64,
    steps: int = 5,
    rounds: int = 5,
    output: Path | None = None,
) -> None:
    """Print images per second of two processes, and of two threads, over those of one thread, on a CPU.

    Two runs side by side, each with half of the batch, show what two processes would do if they exchanged nothing.

    Args:
        resolution: pixels of an image, in colour
        g_width: channels of the generator's blocks
        d_width: channels of the discriminator's blocks
        batch_size: real images, and fakes, per step, over all processes
        steps: steps per round, after one warm-up step
        rounds: how often every launch is timed
        output: file to write the numbers to, as JSON; null: none
    """
    times = Times({name: [] for name in LAUNCHES})
    for _ in range(rounds):
        for name, (number, threads, runs) in LAUNCHES.items():
            options = list(map(str, (resolution, g_width, d_width, batch_size // runs, steps)))
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(number), "--quiet"]
            launch += [
                "--num_machines",
                "1",
                "--mixed_precision",
                "no",
                "--dynamo_backend",
                "no",
                "--main_process_port",
                "0",
            ]
            launch += ["--num_cpu_threads_per_process", str(threads), *(["--multi_gpu"] if number > 1 else [])]
            line, env = [*launch, __file__, "--work", *options], os.environ | {"ACCELERATE_USE_CPU": "true"}
            both = [subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) for _ in range(runs)]
            said = [process.communicate()[0] for process in both]
            times[name].append(max(float(words.split()[-1]) for words in said))
    ratios = [
        times.ratio("images a second of two processes / of one thread", "one", "processes"),
        times.ratio("images a second of two threads / of one thread", "one", "threads"),
        times.ratio("two runs that share nothing, their time / that of two processes", "apart", "processes"),
    ]
    setting = {"resolution": resolution, "g_width": g_width, "d_width": d_width, "batch_size": batch_size}
    report("Two processes", setting | {"rounds": rounds}, torch.device("cpu"), ratios, [], output)


def work(resolution: int, g_width: int, d_width: int, batch_size: int, steps: int) -> None:
    """Print the seconds of `steps` steps, in one of the processes that were launched."""
    generator, discriminator = ResNetGenerator(width=g_width), ResNetDiscriminator(width=d_width)
    config = GANConfig(generator=generator, discriminator=discriminator, batch_size=batch_size, mixup=None)
    made = make_steps(resolution, 3, None, config)
    step(made)
    made.accelerator.wait_for_everyone()
    start = time.perf_counter()
    for _ in range(steps):
        step(made)
    made.accelerator.wait_for_everyone()
    made.accelerator.print(time.perf_counter() - start)
    made.accelerator.end_training()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*map(int, sys.argv[2:]))
    else:
        cli.run(lambda: cli.call(processes))
