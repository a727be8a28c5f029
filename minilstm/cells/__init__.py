"""The mathematics: one file per cell, each with its formulas forward and backward, written once."""
from .cell import Cell, Weights
from .gru import GRU_CELL
from .gru_d import GRU_D_CELL, GRU_D_RESET_AFTER_CELL
from .gru_layer_norm import GRU_LAYER_NORM_CELL
from .gru_reset_before import GRU_RESET_BEFORE_CELL
from .lstm import LSTM_CELL
from .lstm_coupled import LSTM_COUPLED_CELL
from .lstm_covariate import LSTM_COVARIATE_CELL
from .lstm_layer_norm import LSTM_LAYER_NORM_CELL
from .lstm_peephole import LSTM_PEEPHOLE_CELL
from .lstm_projection import LSTM_PROJECTION_CELL
from .rnn import RNN_RELU_CELL, RNN_TANH_CELL

__all__ = ["Cell", "GRU_CELL", "GRU_D_CELL", "GRU_D_RESET_AFTER_CELL", "GRU_LAYER_NORM_CELL",
           "GRU_RESET_BEFORE_CELL", "LSTM_CELL", "LSTM_COUPLED_CELL", "LSTM_COVARIATE_CELL", "LSTM_LAYER_NORM_CELL",
           "LSTM_PEEPHOLE_CELL", "LSTM_PROJECTION_CELL", "RNN_RELU_CELL", "RNN_TANH_CELL", "Weights"]
