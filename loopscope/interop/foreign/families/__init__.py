"""Looped models of others that are known by their structure, one file each; `base` has what an adapter fills."""
