"""Text from looped models: a cache per loop and layer, any exit rule per token. Speaks to the recurrence only.

In the order in which a text is made:

    settings    how to generate, and what is refused before anything runs
    padding     prompts of different lengths, as one batch
    decoder     `generate_tokens`, `stream`: read logits, draw, see whether a text has ended
    ways        which way tokens are made; models of others register theirs
    steps, cached_steps   one step: the whole text computed anew, or the newest token over the cache
    draft, drafted_steps, drafted_text   tokens in rounds: an early exit guesses, full depth checks
    growing_texts   the texts of a batch that go on
    compiled_steps, step_program, traced_cache, token_formulas   steps over the cache as one compiled graph
    grouped_steps   rows that cannot share a batch, as one
    store, view     keys and values of one generation, and one call's view of them
    exits       what generation asks of an exit rule, of one for all rows or of one per row
    missing/    what deeper loops see of tokens that left early
    sampling    from logits to the next token
    streaming, stopping   from tokens to text as they come, and where a text ends
    forced_reading   known texts read token by token: what exits per token cost in quality
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.generation.decoder import Generated, generate_tokens, make_steps, stream
    from loopscope.generation.draft import Draft
    from loopscope.generation.exits import Decision, ExitRule
    from loopscope.generation.forced_reading import ForcedReading, force
    from loopscope.generation.growing_texts import NewToken
    from loopscope.generation.missing import STRATEGIES, AbstractMissing
    from loopscope.generation.padding import pad
    from loopscope.generation.sampling import Sampling
    from loopscope.generation.settings import Settings
    from loopscope.generation.steps import AbstractSteps
    from loopscope.generation.stopping import Stopping
    from loopscope.generation.streaming import IncrementalDecoder, Tokenizer
    from loopscope.generation.ways import AbstractTextWay, text_way

_HOMES = {
    "Settings": "settings",
    "Sampling": "sampling",
    "Stopping": "stopping",
    "IncrementalDecoder": "streaming",
    "Tokenizer": "streaming",
    "pad": "padding",
    "Draft": "draft",
    "Decision": "exits",
    "ExitRule": "exits",
    "AbstractMissing": "missing",
    "STRATEGIES": "missing",
    "AbstractSteps": "steps",
    "AbstractTextWay": "ways",
    "text_way": "ways",
    "Generated": "decoder",
    "NewToken": "growing_texts",
    "generate_tokens": "decoder",
    "make_steps": "decoder",
    "stream": "decoder",
    "ForcedReading": "forced_reading",
    "force": "forced_reading",
}
__all__ = [
    "STRATEGIES",
    "AbstractMissing",
    "AbstractSteps",
    "AbstractTextWay",
    "Decision",
    "Draft",
    "ExitRule",
    "ForcedReading",
    "Generated",
    "IncrementalDecoder",
    "NewToken",
    "Sampling",
    "Settings",
    "Stopping",
    "Tokenizer",
    "force",
    "generate_tokens",
    "make_steps",
    "pad",
    "stream",
    "text_way",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
