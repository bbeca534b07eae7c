"""Benchmarks: each prints a table for people and ends with one JSON line for scripts.

A figure is a ratio to a baseline that runs beside it in the same process, the median of several pairs, because
machines are shared and noisy. Run one with `python -m benchmarks.NAME`.
"""
