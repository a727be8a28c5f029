"""Objects that own parameters.  Every layer has two verbs, ``forward`` and ``backward``, and keeps no other state."""
from .attention import Attention, AttentionPooling
from .checkpointed import Checkpointed
from .embedding import Embedding
from .gru_d import GRUD
from .layer import Layer
from .linear import Linear
from .lstm import LSTM
from .non_crossing import NonCrossing
from .one_state import GRU, RNN
from .pooling import Pooling
from .saving import FormatError, load, save
from .sequential import Sequential

__all__ = [
    "Attention", "AttentionPooling", "Checkpointed", "Embedding", "FormatError", "GRU", "GRUD", "LSTM", "Layer",
    "Linear", "NonCrossing", "Pooling", "RNN", "Sequential", "load", "save",
]
