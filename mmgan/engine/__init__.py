"""What every run needs, built on Accelerate: command line, folder, randomness, checkpoints, logging, signals."""
