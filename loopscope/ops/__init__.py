"""Fast operations for a CPU, each beside its plain reference."""
