"""Objects that own parameters.  Every layer has two verbs, ``forward`` and ``backward``, and keeps no other state."""
from .layer import Layer
from .linear import Linear
from .recurrent import LSTM, RecurrentOutput
from .sequential import Sequential

__all__ = ["LSTM", "Layer", "Linear", "RecurrentOutput", "Sequential"]
