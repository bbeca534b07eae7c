"""Looped models of others, made to fill the waist, so that every audit, curve and exit rule works on them.

`loopscope.adapt` knows families by their structure (no package of theirs is imported); `loopscope.wrap` follows
the forward of any other module. A new family is a file here and a line in `families.py`.
"""
