"""Looped models of others, made to fill the recurrence, so that every audit, curve and exit rule works on them.

In the order in which a module passes through:

    adapt      `adapt`: which family's adapter a module gets, by its structure; no package of theirs is imported
    families/  one adapter a file; a new family is a file here and an entry of `ADAPTERS`
    wrap       `wrap`: any other module, by naming the block that it loops
    tracing/   a stranger's forward pass, recorded and run again with its block's calls answered
    text/      which way a text of such a model is made: over its family's own cache, or anew
    checks/    whether a traced model computes what the module's own forward does
"""

from loopscope.interop.foreign.adapt import ADAPTERS, adapt
from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.text.way import foreign_way
from loopscope.interop.foreign.wrap import wrap

__all__ = ["ADAPTERS", "FamilyAdapter", "adapt", "foreign_way", "wrap"]
