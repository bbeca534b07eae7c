"""Looped models as ONNX files, one per depth: what runs a model without Python or torch.

depth_module  a model at one depth, as a tracer can follow it
onnx_graph    that as an ONNX graph, in which every matrix is stored once, however many loops use it
onnx_files    the files: written whole or not at all, after a run of each that is held to the model
"""
