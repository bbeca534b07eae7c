"""A path or a config in, a record out: train, study, audit, evaluate, generate."""
