"""Which layers of a source go before, into and behind the loop, and which are dropped."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerPlaces:
    """Which of a source's layers (from 0, as transformers counts) go where."""

    prelude: tuple[int, ...]
    loop: tuple[int, ...]
    coda: tuple[int, ...]
    dropped: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """All that are kept, in order."""
        return self.prelude + self.loop + self.coda


@dataclass(frozen=True)
class RetrofitPlan:
    """How many layers go before, into and behind the loop.

    Attributes:
        loop: None: all that prelude and coda leave.
        loop_from: the first layer that is looped; None: the one after which loop and coda end with the source.

    Raises:
        ValueError: a number below 0, or no layer to loop.
    """

    prelude: int = 2
    loop: int | None = None
    coda: int = 2
    loop_from: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("prelude", 0), ("loop", 1), ("coda", 0), ("loop_from", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be a whole number from {least} up")

    def places(self, layers: int) -> LayerPlaces:
        """Return which of so many layers go where.

        Raises:
            ValueError: more than there are, or a loop that would begin in the prelude or end in the coda.
        """
        between = layers - self.prelude - self.coda
        loop = between if self.loop is None else self.loop
        if between < 1 or loop > between:
            least = self.loop or 1
            total = self.prelude + least + self.coda
            raise ValueError(
                f"prelude {self.prelude} + loop {least} + coda {self.coda} is {total} layers, "
                f"and the source has {layers}; lower one"
            )
        end = layers - self.coda
        first = end - loop if self.loop_from is None else self.loop_from
        if not self.prelude <= first <= end - loop:
            raise ValueError(
                f"loop_from is {first}; with prelude {self.prelude}, loop {loop} and coda {self.coda} of {layers} "
                f"layers it must be from {self.prelude} to {end - loop}"
            )
        kept = {*range(self.prelude), *range(first, first + loop), *range(end, layers)}
        return LayerPlaces(
            tuple(range(self.prelude)),
            tuple(range(first, first + loop)),
            tuple(range(end, layers)),
            tuple(layer for layer in range(layers) if layer not in kept),
        )
