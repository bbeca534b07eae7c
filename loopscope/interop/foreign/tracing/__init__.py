"""Following a stranger's forward pass: what its parts were called with, loop by loop."""
