"""Whether a followed model computes what its own forward does."""
