"""The part of a page that shows evaluations: what every depth is worth, early exits, and conditions compared."""
