"""Looped models of others that are known by their structure, one file each."""
