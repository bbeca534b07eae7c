"""The command line's commands, one file each. Heavy imports are inside them: `--help` never waits for torch."""
