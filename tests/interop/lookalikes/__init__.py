"""Small models with the structure of published looped models: their attribute names and data flow, our own code.

Sources that were read: the Huginn and Ouro remote codes, Parcae, LoopLM (rkstgr), LoopFormer, looped_nanochat.
"""

from tests.interop.lookalikes.huginn import RavenForCausalLM
from tests.interop.lookalikes.others import LoopedNanochat, LoopFormer, LoopLM, LoopLMOutput
from tests.interop.lookalikes.ouro import OuroForCausalLM
from tests.interop.lookalikes.parcae import Parcae
from tests.interop.lookalikes.parts import DIM, VOCABULARY, angles

__all__ = [
    "DIM",
    "VOCABULARY",
    "LoopFormer",
    "LoopLM",
    "LoopLMOutput",
    "LoopedNanochat",
    "OuroForCausalLM",
    "Parcae",
    "RavenForCausalLM",
    "angles",
]
