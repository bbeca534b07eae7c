"""Values that several tests share."""

TINY = [
    "--model.dim=16",
    "--model.heads=2",
    "--model.layers=1",
    "--model.loops=2",
    "--model.vocabulary=64",
    "--model.sequence=16",
    "--data.max-bytes=40000",
    "--data.max-validation-bytes=3000",
    "--data.tokenizer.vocabulary=64",
    "--training.steps=3",
    "--training.batch=4",
    "--training.log-every=1",
    "--training.threads=1",
]
"""Flags of a run that takes seconds."""

VERDICTS = {
    "terminal/rmsnorm": "blind",
    "terminal/raw": "visible",
    "dense/rmsnorm": "blind",
    "dense/layernorm": "blind",
    "dense/raw": "visible",
    "dense/final-only": "visible",
    "dense/alpha": "visible",
    "terminal/rmsnorm+penalty": "visible",
    "dense/rmsnorm+penalty": "visible",
    "dense/rmsnorm+interloop": "removed",
}
"""What every shipped condition is, trained or not."""
