"""Small random models of the classes of repositories that no package index has: import paths and small configs.

Only what builds them is here; the code itself is read from a folder of checkouts, one a repository, `OWNER+NAME`. Each
class is imported with its own repository first on the path, and what was imported is forgotten afterwards: several
have a package called `models`.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import loopscope
from tests.interop.foreign.families.models import Named

Importer = Callable[[str], Any]
OLDER = "4.56"
"""The transformers that some were written for."""


@dataclass(frozen=True)
class Repository:
    """A model of a repository's own class.

    Attributes:
        folder: the checkout's, `OWNER+NAME`.
        variant: which of its models.
        build: makes the module, from what imports a module of the repository.
        own: logits of its own forward at a depth.
        verdict: the right one, under dense cross-entropy.
        open: what makes a looped model of it, and `call`, how that is written.
        depths: those at which its forward runs and gives logits, of the trained depth.
        on_the_way: whether a long unroll's exits are those of as many loops.
        masks: whether a row may be shorter than the others.
        root: the folder on the path, in the checkout.
        bare: packages whose `__init__` is left out: it imports what the model does not use.
        transformers: the release that it was written for, where today's does not do.
    """

    folder: str
    variant: str
    build: Callable[[Importer], nn.Module]
    own: Callable[[Any, int], Tensor]
    verdict: str
    open: Callable[[Any], Any] = loopscope.adapt
    call: str = "adapt(m)"
    depths: Callable[[int], Sequence[int]] = lambda loops: range(1, 2 * loops + 1)
    on_the_way: bool = True
    masks: bool = True
    root: str = "."
    bare: tuple[str, ...] = ()
    transformers: str | None = None

    @property
    def name(self) -> str:
        """What its row is called."""
        return (
            f"{self.folder.replace('+', '/')}, {self.variant}"
            if self.variant
            else self.folder.replace("+", "/")
        )

    def case(self, checkout: Path) -> Named:
        """Return it as the models of other tables are, with its code in `checkout`."""

        def make() -> nn.Module:
            with imports_from(checkout / self.root, self.bare) as importer:
                return self.build(importer)

        return Named(
            make,
            self.own,
            self.verdict,
            self.open,
            self.on_the_way,
            "repository",
            self.call,
            self.depths,
            self.masks,
        )


@contextmanager
def imports_from(root: Path, bare: Sequence[str] = ()) -> Iterator[Importer]:
    """Import from a folder for a while; what was imported of it is forgotten, and lives on in what was made."""
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        for name in bare:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")))]
            sys.modules[name] = package
        importlib.invalidate_caches()
        yield importlib.import_module
    finally:
        sys.path.remove(str(root))
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        places = {
            name: [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
            for name, module in new.items()
        }
        for name in new:
            if any(place.startswith(str(root)) for place in places[name]):
                del sys.modules[name]


@torch.no_grad()
def stirred(module: nn.Module) -> nn.Module:
    """Draw weights that start at zero: nothing would pass through them."""
    for parameter in module.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return module
