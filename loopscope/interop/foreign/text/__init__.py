"""Text from models of others: over the cache that their family's own `generate` makes, over one of ours, or anew.

From the two caches to the choice:

    own_cache   steps over the family's own cache: its `generate` makes ready, its forward runs, we draw
    layer_chain   families whose layers can be called one by one
    layer_arguments   what a layer is called with, for tokens at any place
    attention_calls   a layer's attention, over a cache of ours
    chained_model   all of it as a model that remembers, a slot per loop and layer: exits per token
    whole_text   what both are held to: a text computed whole, and how far rounding moves it
    way         which way a text is made, and what is said where a cache does not give the text computed anew
"""
