"""Bridges: models of other formats in and out of the waist."""
