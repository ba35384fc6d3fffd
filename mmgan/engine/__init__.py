"""What every run needs, on Accelerate: command line, folder, randomness, checkpoints, logging, signals."""
