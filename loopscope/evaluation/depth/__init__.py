"""What every depth is worth."""
