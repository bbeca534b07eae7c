"""Looped models in the folders that transformers writes.

pretrained    a folder with config.json and safetensors, as a looped model
remote_code   whether a folder's own code may run, and what it is
"""
