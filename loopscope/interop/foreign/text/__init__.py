"""Text from models of others: over the cache that their family's own `generate` makes, or computed anew.

own_cache   steps over the family's own cache: its `generate` makes ready, its forward runs, we draw
way         which way a text is made, and what is said where a cache does not give the text computed anew
"""
