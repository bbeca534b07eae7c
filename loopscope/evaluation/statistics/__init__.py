"""Intervals and tests over seeds and text."""
