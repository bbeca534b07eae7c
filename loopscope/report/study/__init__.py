"""The study's part of a report."""
