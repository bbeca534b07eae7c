"""Looped models in the folders that transformers writes.

pretrained    a folder with config.json and safetensors, as a looped model
loading       in which type, and onto which devices
hub           a name on the hub, as a folder of its cache
retrofit_source, retrofit_families, retrofit_plan, retrofitted
              an unlooped model of a known family, some of its layers looped
remote_code   whether a folder's own code may run, and what it is
"""
