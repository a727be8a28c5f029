"""Layers in a row: each reads what the one before it wrote."""
from .layer import Layer
from .recurrent import Recurrent


class Sequential(Layer):
    """A model of several layers, for example ``Sequential(LSTM(1, 32), Linear(32, 1))``: one output per step.

    A recurrent layer passes its y on, and gets the mask.  Parameters are named by place: "0.weight_ih_l0", "1.bias".
    """

    def __init__(self, *layers):
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            raise TypeError(f"layers: expected one layer or more, got {[type(layer).__name__ for layer in layers]}")
        if len({layer.dtype for layer in layers}) > 1:
            raise ValueError(f"layers: expected one dtype, got {[str(layer.dtype) for layer in layers]}")
        super().__init__(layers[0].dtype, layers[0].backend)
        self.layers = layers

    def children(self):
        return {str(k): layer for k, layer in enumerate(self.layers)}

    def forward(self, x, mask=None):
        """x (B,T,D), mask (B,T) bool or None -> y of the last layer, cache."""
        caches = []
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                output, cache = layer.forward(x, mask)
                x = output.y
            else:
                x, cache = layer.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, cache, dy):
        """The gradient of y -> dx (B,T,D); adds to the ``grads`` of every layer."""
        for layer, layer_cache in zip(reversed(self.layers), reversed(cache)):
            dy = layer.backward(layer_cache, dy)
            if isinstance(layer, Recurrent):
                dy = dy[0]
        return dy
