"""minilstm: an LSTM engine to read line by line, and then to use.  ``README.md`` has the reading order."""
__version__ = "0.1.0"

from . import attention, conditioning, interop, masking, sequences
from .checks.gradients import check_gradients
from .checks.trace import trace
from .conditioning import Conditioned, CovariateSpec, Forecaster
from .layers import (
    GRU, GRUD, LSTM, RNN, Attention, AttentionPooling, Embedding, FormatError, Layer, Linear, Pooling, Sequential, load,
    save)
from .machine.threads import get_num_threads, set_num_threads
from .training import Adam, clip_global_norm, fit, mean_squared_error, softmax_cross_entropy

__all__ = [
    "Adam", "Attention", "AttentionPooling", "Conditioned", "CovariateSpec", "Embedding", "Forecaster", "FormatError",
    "GRU", "GRUD", "LSTM", "Layer", "Linear", "Pooling", "RNN", "Sequential", "attention", "check_gradients",
    "clip_global_norm", "conditioning", "fit", "get_num_threads", "interop", "load", "masking", "mean_squared_error",
    "save", "sequences", "set_num_threads", "softmax_cross_entropy", "trace",
]
