"""Conditions side by side, at matched depth and matched FLOPs."""
