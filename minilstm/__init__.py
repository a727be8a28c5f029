"""minilstm: an LSTM engine to read line by line, and then to use.  ``README.md`` has the reading order."""
__version__ = "0.1.0"

from . import attention, conditioning, interop, masking, sequences, training
from .checks.gradients import check_gradients
from .checks.nonfinite import find_nonfinite
from .checks.trace import trace
from .conditioning import Conditioned, CovariateSpec, Forecaster
from .explorer import explore
from .layers import (
    GRU, GRUD, LSTM, RNN, Attention, AttentionPooling, Checkpointed, Embedding, FormatError, Layer, Linear, NonCrossing,
    Pooling, Sequential, load, save)
from .machine.threads import get_num_threads, set_num_threads
from .streaming import Streams
from .training import (
    SGD, Adam, AdamW, RMSprop, binary_cross_entropy, clip_global_norm, clip_value, evaluate, fit, gaussian_loss, huber,
    mean_absolute_error, mean_squared_error, quantile_loss, softmax_cross_entropy, truncated_bptt)

__all__ = [
    "Adam", "AdamW", "Attention", "AttentionPooling", "Checkpointed", "Conditioned", "CovariateSpec", "Embedding",
    "Forecaster", "FormatError", "GRU", "GRUD", "LSTM", "Layer", "Linear", "NonCrossing", "Pooling", "RMSprop", "RNN",
    "SGD", "Sequential", "Streams", "attention", "binary_cross_entropy", "check_gradients", "clip_global_norm",
    "clip_value", "conditioning", "evaluate", "explore", "find_nonfinite", "fit", "gaussian_loss", "get_num_threads",
    "huber", "interop", "load", "masking", "mean_absolute_error", "mean_squared_error", "quantile_loss", "save",
    "sequences", "set_num_threads", "softmax_cross_entropy", "trace", "training", "truncated_bptt",
]
