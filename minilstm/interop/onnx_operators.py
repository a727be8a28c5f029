"""ONNX's recurrent operators beside our layers: what the export and the import share.

ONNX has three recurrent operators, each one layer in one direction or in both: LSTM, GRU and RNN.  Beside ours:

    time        first: X (T,B,D), Y (T,dirs,B,H), states (dirs,B,H)     ONNX Runtime has no other order
    blocks      another order, in ``BLOCKS``; W (dirs,G*H,D), R (dirs,G*H,H) in the place of our weight_ih, weight_hh
    biases      B (dirs,2*G*H): bias_ih, then bias_hh
    peepholes   P (dirs,3*H), in the order ``PEEPHOLES``
    coupled     input_forget=1: f = 1 - i, and the blocks of f are there but nobody reads them
    GRU         linear_before_reset=1: reset after the product; 0, the default: before it
    padding     sequence_lens (B,), the first so many steps of a row are real; Y is 0 after them, and the backward
                direction begins at the last of them

Sources: the operators LSTM, GRU and RNN in the ONNX operator specification (docs/Operators.md), which leaves out what
input_forget does to the formulas, what Y holds after the end of a row, and what becomes of a row without steps.  There
the word is ONNX Runtime's: ``tests/test_interop_onnx.py`` holds ours against it.
"""
from ..layers import GRU, LSTM, RNN

RECURRENT = {"GRU": GRU, "LSTM": LSTM, "RNN": RNN}
BLOCKS = {"GRU": ("z", "r", "n"), "LSTM": ("i", "o", "f", "g"), "RNN": ("a",)}      # ONNX's order, our names
PEEPHOLES = ("p_i", "p_o", "p_f")
