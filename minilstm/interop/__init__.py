"""Layers to and from other libraries, with the same weights.  What they cannot say alike is an exception that says why.

The other libraries are imported when a function needs them, not before: minilstm works without any of them.
"""
from .keras import from_keras, to_keras
from .onnx_export import to_onnx
from .onnx_import import from_onnx
from .pytorch import from_pytorch, load_pytorch_state, to_pytorch, to_pytorch_state

__all__ = ["from_keras", "from_onnx", "from_pytorch", "load_pytorch_state", "to_keras", "to_onnx", "to_pytorch",
           "to_pytorch_state"]
