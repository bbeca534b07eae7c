"""Looped models in the folders that transformers writes.

pretrained    a folder with config.json and safetensors, as a looped model
loading       in which type, and onto which devices
hub           a name on the hub, as a folder of its cache
remote_code   whether a folder's own code may run, and what it is
"""
