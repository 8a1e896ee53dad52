"""The training loop, and its parts: batches, checkpoints, processes, recovery."""
