"""The training loop, and what it stands on: batches, checkpoints, processes, recovery."""
