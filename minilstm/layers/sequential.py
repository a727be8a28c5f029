"""Layers in a row: each reads what the one before it wrote."""
from .. import backends
from ..arguments import describe, flag
from .layer import ConditionedGradients, Counter, Layer, first, state_of
from .noise import number_of_draw


class Sequential(Layer):
    """A model of several layers, for example ``Sequential(LSTM(1, 32), Linear(32, 1))``: one output per step; or with a
    ``Pooling("last")`` between the two: one for a sequence.

    Layers that take a mask get it, those that take a condition get this, and each passes its y on.  The layers
    stand in ``layers``, with their ``params`` and ``grads``; ``state_dict`` names parameters by place:
    "0.weight_ih_l0", "1.bias".
    """
    backends = backends.NAMES
    takes_mask = True
    takes_training = True

    def __init__(self, *layers):
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            raise TypeError("layers: expected layers, one or more, as arguments of their own, "
                            f"got {[type(layer).__name__ for layer in layers]}")
        if len({layer.dtype for layer in layers}) > 1:
            raise ValueError(f"layers: expected one dtype, got {[str(layer.dtype) for layer in layers]}")
        if len({layer.backend == "gpu" for layer in layers}) > 1:
            raise ValueError("layers: expected all of them on the GPU or none, got "
                             f"{[layer.backend for layer in layers]}")
        for place, (below, above) in enumerate(zip(layers, layers[1:]), start=1):
            gives, takes = getattr(below, "output_size", None), getattr(above, "input_size", None)
            if None not in (gives, takes) and gives != takes:
                raise ValueError(f"layers: expected input_size={gives} in place {place}, as the layer before it gives, "
                                 f"got {takes}")
        for place, layer in enumerate(layers[1:], start=1):
            if layer.takes_categories:
                raise ValueError(f"layers: expected {type(layer).__name__}, which reads categories, in place 0 only, "
                                 f"got it in place {place}")
        self.takes_categories = layers[0].takes_categories
        self.takes_condition = any(layer.takes_condition for layer in layers)
        pooled = [layer.pools for layer in layers]
        self.pools = any(pooled)
        behind = layers[pooled.index(True) + 1:] if self.pools else ()
        if any(layer.takes_mask for layer in behind):
            raise ValueError("layers: expected layers without time behind one that pools, got "
                             f"{[type(layer).__name__ for layer in behind]}")
        super().__init__(layers[0].dtype, layers[0].backend)
        self.layers = layers
        self.counter = Counter()
        self.input_size = getattr(layers[0], "input_size", None)
        self.output_size = getattr(layers[-1], "output_size", None)

    def __repr__(self):
        return "\n".join(["Sequential(", *(f"    {layer!r}," for layer in self.layers), ")"])

    def children(self):
        return {str(k): layer for k, layer in enumerate(self.layers)}

    def forward(self, x, mask=None, *, condition=None, condition_mask=None, training=False, draw=None, cache=True):
        """x (B,T,D), or integers (B,T) if the first layer reads categories; mask (B,T) bool or None -> y of the last
        layer, (B,T,F) or (B,F); cache.  Masked steps of x are never read.

        condition, condition_mask: for the layers that take a condition, all of them the same one.
        training, draw: for the layers that are random in training, as ``LSTM.forward`` has them.  A draw of the model
        is another draw for each place in it, also where a layer stands in it twice.
        cache: False keeps nothing for a backward pass, and returns None in its place; every layer must take it."""
        keeps = flag("cache", cache)
        given = {"condition": condition, "condition_mask": condition_mask}
        given = {name: array for name, array in given.items() if array is not None}
        if self.takes_condition != ("condition" in given) or given and not self.takes_condition:
            expected = "an array, which a layer of this model takes" if self.takes_condition else "none in this model"
            cure = "; pass it by its name, condition=" if self.takes_condition and mask is not None else ""
            raise ValueError(f"condition: expected {expected}, got {', '.join(given) or None}{cure}")
        draw = number_of_draw(training, draw, self.counter)
        x, mask = self._selected(x, mask)
        caches = []
        for place, layer in enumerate(self.layers):
            options = {"mask": mask} if layer.takes_mask else {}
            options |= {} if keeps else {"cache": False}
            options |= given if layer.takes_condition else {}
            if layer.takes_training and training:
                options |= {"training": True, "draw": draw * len(self.layers) + place}
            out, layer_cache = layer.forward(x, **options)
            x = first(out)
            caches.append(layer_cache)
        return x, caches if keeps else None

    def backward(self, cache, dy):
        """The gradient of y -> dx (B,T,D), None if x are categories; adds to the ``grads`` of every layer.

        Where a layer takes a condition -> ConditionedGradients(dx, dcondition), the latter summed over the layers."""
        dcondition = 0
        for layer, layer_cache in self._downwards(cache):
            gradients = layer.backward(layer_cache, dy)
            dy = first(gradients)
            dcondition = dcondition + gradients.dcondition if layer.takes_condition else dcondition
        return ConditionedGradients(dy, dcondition) if self.takes_condition else dy

    def start(self, B):
        return tuple(layer.start(B) for layer in self.layers)

    def forward_from(self, x, state, mask=None, *, training=False, draw=None, part=(), cache=True):
        keeps = flag("cache", cache)
        draw = number_of_draw(training, draw, self.counter)
        x, mask = self._selected(x, mask)
        states, caches = [], []
        for place, (layer, before) in enumerate(zip(self.layers, state_of(state, len(self.layers)))):
            options = {}
            if layer.takes_training and training:
                options = {"training": True, "draw": draw * len(self.layers) + place, "part": part}
            (x, after), layer_cache = layer.forward_from(x, before, mask if layer.takes_mask else None, cache=keeps,
                                                         **options)
            states.append(after)
            caches.append(layer_cache)
        return (x, tuple(states)), caches if keeps else None

    def backward_to(self, cache, dy, d_state=None):
        n = len(self.layers)
        d_states = []
        d_after = (None,) * n if d_state is None else state_of(d_state, n)
        for (layer, layer_cache), d in zip(self._downwards(cache), reversed(d_after)):
            dy, d_before = layer.backward_to(layer_cache, dy, d)
            d_states.append(d_before)
        return dy, tuple(reversed(d_states))

    def _selected(self, x, mask):
        """x and its mask, both checked where there is one: x is then 0 at masked steps, unless it is categories."""
        if mask is None or self.takes_categories:
            return x, mask
        x = self.arrays.floats("x", x, self.dtype, (None, None, None), ("B", "T", "D"))
        mask = self.arrays.mask_of(x, mask, None)
        return self.arrays.select(x, mask), mask

    def _downwards(self, cache):
        """The layers with their caches, from the last one on."""
        if not isinstance(cache, list) or len(cache) != len(self.layers):
            raise TypeError("cache: expected what forward returned beside its output, a list of "
                            f"{len(self.layers)}, got {describe(cache)}")
        return list(zip(reversed(self.layers), reversed(cache)))
