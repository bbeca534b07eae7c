"""Text from looped models: a cache per loop and layer, any exit rule per token. Speaks to the recurrence only."""
