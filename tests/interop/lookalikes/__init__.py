"""Small models with the structure of published looped models: their attribute names and data flow, our own code.

Sources that were read: the Huginn and Ouro remote codes, Parcae, LoopLM (rkstgr), LoopFormer, looped_nanochat.
"""

from tests.interop.lookalikes.huginn import RavenForCausalLM
from tests.interop.lookalikes.others import LoopedNanochat, LoopFormer, LoopLM, LoopLMOutput
from tests.interop.lookalikes.ouro import OuroForCausalLM
from tests.interop.lookalikes.parcae import Parcae
from tests.interop.lookalikes.parts import DIM, VOCABULARY, angles
from tests.interop.lookalikes.shared_stacks import (
    ElasticLooped,
    FixedPoint,
    LoopedGPT,
    NanbeigeForCausalLM,
    ReadoutBlindSpot,
)
from tests.interop.lookalikes.side_states import LoopCoderForCausalLM, MixtureOfRecursions, TinyRecursive

__all__ = [
    "DIM",
    "VOCABULARY",
    "ElasticLooped",
    "FixedPoint",
    "LoopCoderForCausalLM",
    "LoopFormer",
    "LoopLM",
    "LoopLMOutput",
    "LoopedGPT",
    "LoopedNanochat",
    "MixtureOfRecursions",
    "NanbeigeForCausalLM",
    "OuroForCausalLM",
    "Parcae",
    "RavenForCausalLM",
    "ReadoutBlindSpot",
    "TinyRecursive",
    "angles",
]
