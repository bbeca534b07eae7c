"""The lens: every state of a looped model by loop and layer, and what changes when one of them is replaced.

    model_lens   `lens`, and the `Lens` that it returns: what is asked of a model
    views        what is seen: a loop, and a layer in it
    patches      a state that is put in the place of another, and what it has to fit
    sites        which modules are a loop's layers, found in one run
    sublayers    where attention and feed-forward are in a layer, and the state between them
    recorder     one loop's core, watched: states kept, states replaced
    call_state   the hidden state among what a module is called with, and in what it returns
    operations   operations of torch, counted, and one of them answered for
    exit_guesses what every exit says of a text: the record of a logit lens

Memory: one loop's states, or those that were asked for. Nothing records a gradient.
"""

from loopscope.evaluation.lens.model_lens import Lens, lens
from loopscope.evaluation.lens.patches import STATE_PLACES, Place
from loopscope.evaluation.lens.views import LayerStates, LoopView

__all__ = ["STATE_PLACES", "LayerStates", "Lens", "LoopView", "Place", "lens"]
