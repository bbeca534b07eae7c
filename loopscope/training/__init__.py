"""Training: optimizer, loop, checkpoints, validation. The model and the data are passed in."""
