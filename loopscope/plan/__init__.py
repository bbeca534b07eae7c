"""What a config says before it runs: parameters, FLOPs, memory, the static audit, the catalogue. Never loads torch."""
