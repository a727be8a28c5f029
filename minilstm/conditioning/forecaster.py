"""A forecaster with covariates: one LSTM reads the history, a second one walks on into the horizon.

    e        known covariates, numbers and embedded categories, at all steps           (N,L+K,·)
    s        static ones, numbers and embedded categories, repeated at every step      (N,·)
    encoder  reads [past, embedded past categories, e, s] at t-L+1 ... t, skips what lies before the series
    decoder  begins with the encoder's last state; reads [e, s, lead] at t+1 ... t+K
    y        head(decoder's h), a linear layer                                         (N,K,F)

    lead     k/K at step t+k: how far ahead.  Without known and static covariates it is all that the decoder reads

The encoder and decoder of Sutskever, Vinyals and Le 2014; as there is no feedback of what is forecast, training and
forecasting are the same computation.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, positive
from ..layers.embedding import Embedding
from ..layers.layer import Layer, stream
from ..layers.linear import Linear
from ..layers.lstm import LSTM
from ..layers.saving import register
from .covariates import CovariateSpec


class ForecasterGradients(NamedTuple):
    """What ``Forecaster.backward`` returns: gradients of the numbers that went in.  Categories have none."""
    dpast: np.ndarray       # (N,L,P), 0 before the series begins
    dknown: np.ndarray      # (N,L+K,M)
    dstatic: np.ndarray     # (N,M_s)


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    widths: dict            # name of an input -> its width
    embedded: dict          # name of a categorical covariate -> the cache of its Embedding
    encoder: tuple
    decoder: tuple
    head: tuple


class Forecaster(Layer):
    """The next K steps of the targets, from all that the specification lets a forecast read.

    spec            a CovariateSpec, or its ``arguments()``
    hidden_size     H, of both LSTMs
    embedding_size  numbers for a category
    num_layers      of both LSTMs
    dtype           "float32" or "float64", that of the table's numbers
    seed            of the initial weights; None: all 0

    Training:     w = spec.windows(table);  fit(model, w.inputs, w.target, loss_mask=w.target_mask, ...)
    Forecasts:    model.forecast(table, t)
    """

    def __init__(self, spec, hidden_size, *, embedding_size=4, num_layers=1, dtype="float32", backend="cpu", seed=0):
        super().__init__(dtype, backend)
        if not isinstance(spec, (CovariateSpec, dict)):
            raise TypeError(f"spec: expected a CovariateSpec, or its arguments() as a dict, got {describe(spec)}")
        self.spec = spec if isinstance(spec, CovariateSpec) else CovariateSpec(**spec)
        self.columns = self.spec.columns()
        self.hidden_size = positive("hidden_size", hidden_size)
        self.embedding_size = positive("embedding_size", embedding_size)
        self.num_layers = positive("num_layers", num_layers)
        rng = stream(seed, "Forecaster")
        self.embeddings = {name: Embedding(V, embedding_size, **self._options(rng))
                           for name, V in self.spec.categories.items()}
        past, known, static = (len(self.columns[group]) + embedding_size * len(self.columns[f"{group}_categories"])
                               for group in ("past", "known", "static"))
        self.encoder = LSTM(past + known + static, hidden_size, num_layers=num_layers, **self._options(rng))
        self.decoder = LSTM(known + static + 1, hidden_size, num_layers=num_layers, **self._options(rng))
        self.head = Linear(hidden_size, len(self.spec.of("target")), **self._options(rng))

    def _options(self, rng):
        """Layers of one size must not begin with the same weights: each has a seed of its own."""
        seed = None if rng is None else int(rng.integers(2**32))
        return {"dtype": self.dtype, "backend": self.backend, "seed": seed}

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"spec": self.spec.arguments(), "hidden_size": self.hidden_size, "embedding_size": self.embedding_size,
                "num_layers": self.num_layers}

    def children(self):
        embeddings = {f"embedding.{name}": layer for name, layer in self.embeddings.items()}
        return {**embeddings, "encoder": self.encoder, "decoder": self.decoder, "head": self.head}

    def forecast(self, table, t=None):
        """The targets at t+1 ... t+K, of each of the S series in a table -> (S,K,F).

        t   one step for all series, or (S,) integers; None: the last step of the first target
        Raises ValueError that names a column and the steps of it that are missing."""
        return self.forward(**self.spec.inputs_at(table, t), cache=False)[0]

    def forward(self, past, known, static, past_categories, known_categories, static_categories, history_mask, *,
                cache=True):
        """What ``CovariateSpec.inputs_at`` and ``windows`` give, by the same names -> y (N,K,F), cache.

        cache=False keeps nothing for a backward pass, and returns None in its place.
        Raises TypeError or ValueError that names the array that does not fit."""
        keeps, L, K = flag("cache", cache), self.spec.history, self.spec.horizon
        given = {"past": past, "past_categories": past_categories, "known": known, "known_categories": known_categories,
                 "static": static, "static_categories": static_categories}
        given, history_mask = self._checked(given, history_mask)
        N = len(history_mask)
        masks = {"past": history_mask, "known": np.concatenate([history_mask, np.ones((N, K), bool)], axis=1)}
        embedded, joined = {}, {}
        for group in ("past", "known", "static"):
            parts = [given[group]]
            for name, x in zip(self.columns[f"{group}_categories"], np.moveaxis(given[f"{group}_categories"], -1, 0)):
                if group == "static":
                    y, embedded[name] = self.embeddings[name].forward(x[:, None], cache=keeps)
                    y = y[:, 0]
                else:
                    y, embedded[name] = self.embeddings[name].forward(x, masks[group], cache=keeps)
                parts.append(y)
            joined[group] = np.concatenate(parts, axis=-1)
        s, e = joined["static"], joined["known"]
        read = np.concatenate([joined["past"], e[:, :L], _at_each(s, L)], axis=2)
        seen, encoder = self.encoder.forward(read, history_mask, cache=keeps)
        lead = np.broadcast_to((np.arange(1, K + 1) / K).astype(self.dtype)[:, None], (N, K, 1))
        read = np.concatenate([e[:, L:], _at_each(s, K), lead], axis=2)
        ahead, decoder = self.decoder.forward(read, h0=seen.h_n, c0=seen.c_n, cache=keeps)
        y, head = self.head.forward(ahead.y, cache=keeps)
        widths = {group: array.shape[-1] for group, array in joined.items()}
        return y, Cache(widths, embedded, encoder, decoder, head) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y (N,K,F) -> ForecasterGradients; adds to the ``grads`` of every layer."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        P, M, S = (cache.widths[group] for group in ("past", "known", "static"))
        d_ahead = self.head.backward(cache.head, dy)                        # y = head(ahead.y)
        d_read, dh, dc = self.decoder.backward(cache.decoder, d_ahead)      # ahead = decoder(read, seen.h_n, seen.c_n)
        de_ahead, ds_ahead = d_read[:, :, :M], d_read[:, :, M:M + S]        # read = [e[:, L:], s at each step, lead]
        d_read, _, _ = self.encoder.backward(cache.encoder, dh_n=dh, dc_n=dc)               # seen = encoder(read)
        d_past, de, ds = np.split(d_read, [P, P + M], axis=2)               # read = [past, e[:, :L], s at each step]
        d_joined = {"past": d_past, "known": np.concatenate([de, de_ahead], axis=1),
                    "static": ds.sum(axis=1) + ds_ahead.sum(axis=1)}        # s at each step = s repeated
        gradients = []
        for group, d in d_joined.items():
            numbers = len(self.columns[group])
            gradients.append(d[..., :numbers].copy())                       # joined = [numbers, embedded categories]
            for k, name in enumerate(self.columns[f"{group}_categories"]):
                first = numbers + k * self.embedding_size
                dy = d[..., first:first + self.embedding_size]
                self.embeddings[name].backward(cache.embedded[name], dy[:, None] if group == "static" else dy)
        return ForecasterGradients(*gradients)

    def _checked(self, given, history_mask):
        """-> the arrays, checked, and the mask."""
        L, steps = self.spec.history, {"past": (self.spec.history,), "static": (),
                                       "known": (self.spec.history + self.spec.horizon,)}
        if not isinstance(history_mask, np.ndarray) or history_mask.dtype != bool or history_mask.shape[1:] != (L,):
            raise ValueError(f"history_mask: expected bool (N, L={L}), got {describe(history_mask)}")
        for name, columns in self.columns.items():
            group, _, categories = name.partition("_")
            shape, array = (len(history_mask), *steps[group], len(columns)), given[name]
            if not categories:
                letters = ("N", "steps", "columns") if group != "static" else ("N", "columns")
                given[name] = floats(name, array, self.dtype, shape, letters)
            elif not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.shape != shape:
                raise ValueError(f"{name}: expected integers {shape}, got {describe(array)}")
        return given, history_mask


def _at_each(s, steps):
    """s (N,S) at each of so many steps -> (N,steps,S)."""
    return np.repeat(s[:, None], steps, axis=1)


def _least(kind, sizes):
    """How many numbers a Forecaster of these sizes has at the least."""
    E, H, layers = (sizes.get(name, default) for name, default in (
        ("embedding_size", 4), ("hidden_size", 0), ("num_layers", 1)))
    return E * sum(dict(sizes["spec"]["categories"]).values()) + 2 * 4 * H * (1 + layers * (H + 2))


register(Forecaster, _least)
