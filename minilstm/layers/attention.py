"""Attention with weights of its own: over the steps of a sequence, over another sequence, or as a pooling."""
import math
from typing import NamedTuple

import numpy as np

from .. import attention
from ..arguments import describe, flag, floats, mask_of, one_of, positive
from ..masking.reference import select
from .layer import Layer, own_cache, seed_of, stream
from .linear import Linear
from .recurrent import glorot

SCORES = ("scaled", "dot", "additive")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class Weighted(NamedTuple):
    """What forward gives with return_weights."""
    y: np.ndarray
    weights: np.ndarray         # (B,heads,Tq,Tk), of a pooling (B,heads,T)


class Gradients(NamedTuple):
    """What backward gives where a memory was given."""
    dx: np.ndarray
    dmemory: np.ndarray


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple
    projections: tuple          # the caches of the Linear layers
    attended: attention.Cache
    mask: np.ndarray            # (B,Tq): the queries that are real and see a key; of a pooling (B,T), the real steps
    alone: bool = True          # x is its own memory


class Attention(Layer):
    """Every step of x asks, every step of a memory answers; without a memory x answers itself.

        q = x @ W_q.T + b_q     k = memory @ W_k.T     v = memory @ W_v.T + b_v
        context = attention over the steps of the memory, whose formulas stand in ``minilstm/attention/reference.py``
        y = context @ W_o.T + b_o                           with an output_size or several heads, else the context

    input_size      D, of x
    attention_size  A, of q and k
    memory_size     E, of the memory.  None: D
    value_size      F, of v.  None: A
    output_size     of y.  None: F, and without an output projection where there is one head
    heads           divides A and F: so many attentions side by side, each with its part of the columns
    score           "scaled"    q . k / sqrt(A / heads)         (Vaswani et al. 2017)
                    "dot"       q . k                           (Luong et al. 2015)
                    "additive"  w . tanh(q + k)                 (Bahdanau et al. 2015)
    causal          step t of x sees the memory up to its step t, for two sequences of one length
    bias            of the projections
    dtype, backend, seed        as for ``Linear``; the weights are Glorot uniform, biases begin at 0

    params: q_proj.weight (A,D), k_proj.weight (A,E), v_proj.weight (F,E), out_proj.weight, a bias for each but k_proj,
    and score_weight (A,) of the additive score.  A bias of k would change nothing: in q . k it adds the same to all the
    scores of a query, which the softmax takes away again, and in q + k the bias of q does the same.  PyTorch's
    ``nn.MultiheadAttention`` has it nevertheless, in its in_proj_bias.
    """
    takes_mask = True
    needs_whole = "its steps look at each other"

    def __init__(self, input_size, attention_size, *, memory_size=None, value_size=None, output_size=None, heads=1,
                 score="scaled", causal=False, bias=True, dtype="float32", backend="cpu", seed=0):
        super().__init__(dtype, backend)
        self.input_size = D = positive("input_size", input_size)
        self.attention_size = A = positive("attention_size", attention_size)
        self.memory_size = E = D if memory_size is None else positive("memory_size", memory_size)
        self.value_size = F = A if value_size is None else positive("value_size", value_size)
        self.heads = _dividing(heads, attention_size=A, value_size=F)
        self.score = one_of("score", score, SCORES)
        self.causal, self.bias = flag("causal", causal), flag("bias", bias)
        projects = output_size is not None or self.heads > 1
        self.output_size = F if output_size is None else positive("output_size", output_size)
        self.identity = ("Attention", D, A, E, F, self.output_size, self.heads, self.score, self.causal)
        rng = stream(seed, *self.identity)
        sizes = {"q_proj": (D, A), "k_proj": (E, A), "v_proj": (E, F)}
        sizes |= {"out_proj": (F, self.output_size)} if projects else {}
        self.projections = {name: Linear(*size, bias=self.bias and name != "k_proj", dtype=self.dtype, backend=backend,
                                         seed=seed_of(rng)) for name, size in sizes.items()}
        if self.score == "additive":
            self._own("score_weight", _score_weight(A, rng))

    def children(self):
        return self.projections

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "attention_size": self.attention_size, "memory_size": self.memory_size,
                "value_size": self.value_size, "output_size": self.output_size if "out_proj" in self.projections
                else None, "heads": self.heads, "score": self.score, "causal": self.causal, "bias": self.bias}

    def forward(self, x, mask=None, *, memory=None, memory_mask=None, lengths=None, return_weights=False, cache=True):
        """x (B,Tq,D) -> y (B,Tq,output_size), cache; with return_weights Weighted(y, weights (B,heads,Tq,Tk)), cache.

        mask, lengths       of x, as for ``LSTM``
        memory              (B,Tk,E), and memory_mask (B,Tk) bool, True = real, or None where all of it is
        cache               False: None in its place, for no backward pass
        y is 0, and so is its gradient, at masked steps and where a step sees no real step of the memory.

        Raises TypeError or ValueError for what does not fit; warns with OneKeyWarning if the memory has one step."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "Tq", "D"))
        mask = mask_of(x, mask, lengths)
        returns, keeps = flag("return_weights", return_weights), flag("cache", cache)
        alone = memory is None
        memory, memory_mask = self._itself(x, mask, memory_mask) if alone else self._memory(x, memory, memory_mask)
        attention.warn_of_one_key(memory.shape[1], stacklevel=2)
        sees = mask & (np.logical_or.accumulate(memory_mask, axis=1) if self.causal else
                       memory_mask.any(axis=1, keepdims=True))
        x, memory = select(x, sees), select(memory, memory_mask)
        (q, q_cache), (k, k_cache), (v, v_cache) = (
            self.projections[name].forward(array, cache=keeps) for name, array in zip(PROJECTIONS, (x, memory, memory)))
        w = self._param("score_weight") if self.score == "additive" else None
        y, attended = attention.compute(self.backend, q, k, v, w, memory_mask, sees, self.causal, self.heads,
                                        *self._scale())
        out = self.projections.get("out_proj")
        y, out_cache = out.forward(y, cache=keeps) if out else (y, None)
        y = select(y, sees)
        kept = Cache(self.identity, (q_cache, k_cache, v_cache, out_cache), attended, sees, alone) if keeps else None
        return Weighted(y, attention.attention_weights(attended)) if returns else y, kept

    def backward(self, cache, dy):
        """The gradient of y -> dx (B,Tq,D), or Gradients(dx, dmemory (B,Tk,E)) if there was a memory; adds to
        ``grads``."""
        _, (q_cache, k_cache, v_cache, out_cache), attended, sees, alone = own_cache(cache, Cache, self.identity)
        dy = floats("dy", dy, self.dtype, (*sees.shape, self.output_size), ("B", "Tq", "F"))
        d_context = select(dy, sees)                                                        # y = select(y, sees)
        if out_cache is not None:
            d_context = self.projections["out_proj"].backward(out_cache, d_context)         # y = out(context)
        dq, dk, dv, dw = attention.compute_backward(attended, d_context)                    # context = compute(...)
        dx = self.projections["q_proj"].backward(q_cache, dq)                               # q = q_proj(x)
        dmemory = self.projections["k_proj"].backward(k_cache, dk)                          # k = k_proj(memory)
        dmemory += self.projections["v_proj"].backward(v_cache, dv)                         # v = v_proj(memory)
        if dw is not None:
            self._add_grads({"score_weight": dw})
        return dx + dmemory if alone else Gradients(dx, dmemory)                            # memory = x

    def _scale(self):
        """The last of the options of ``attention.compute``, which the additive score does not have."""
        return {"scaled": (1 / math.sqrt(self.attention_size / self.heads),), "dot": (1.0,), "additive": ()}[self.score]

    def _itself(self, x, mask, memory_mask):
        if memory_mask is not None:
            raise ValueError("memory_mask: expected None without a memory, whose mask is then that of x, "
                             f"got {describe(memory_mask)}")
        if self.memory_size != self.input_size:
            raise ValueError(f"memory: expected {self.dtype} (B={len(x)}, Tk, E={self.memory_size}), got None: x is "
                             f"its own memory where memory_size is input_size={self.input_size}")
        return x, mask

    def _memory(self, x, memory, memory_mask):
        B, Tq, _ = x.shape
        memory = floats("memory", memory, self.dtype, (B, None, self.memory_size), ("B", "Tk", "E"))
        Tk = memory.shape[1]
        if self.causal and Tk != Tq:
            raise ValueError(f"memory: expected Tk={Tq} steps, as x has, for causal attention, got {Tk}")
        return memory, attention.mask_of("memory_mask", memory_mask, B, Tk, "Tk")


class AttentionPooling(Layer):
    """One output for a sequence: a weighted mean of its steps, with weights that are learnt.

        k_t = W_k @ x_t     score_t = score_weight . tanh(query + k_t)
        y   = sum over t of p_t * x_t, where p is the softmax of the scores of the real steps

    input_size      D
    attention_size  A, of k and of the query
    heads           divides A.  Each head has its part of the A columns, so weights of its own, and a mean of its own: y
                    is (B,heads*D).  (The heads of Lin et al. 2017 share all A columns)
    dtype, backend, seed        as for ``Linear``; W_k and score_weight are Glorot uniform, the query begins at 0

    params: query (A,), score_weight (A,), k_proj.weight (A,D).  It is additive attention with one query, which is the
    same for all sequences: the bias in Yang et al. 2016, equation 5.  Where each sequence comes with a query of its
    own, call ``Attention`` with the query as an x of one step and the sequence as its memory.
    """
    takes_mask = True
    pools = True
    needs_whole = "it makes one output of all steps"

    def __init__(self, input_size, attention_size, *, heads=1, dtype="float32", backend="cpu", seed=0):
        super().__init__(dtype, backend)
        self.input_size = D = positive("input_size", input_size)
        self.attention_size = A = positive("attention_size", attention_size)
        self.heads = _dividing(heads, attention_size=A)
        self.output_size = self.heads * D
        self.identity = ("AttentionPooling", D, A, self.heads)
        rng = stream(seed, *self.identity)
        self.k_proj = Linear(D, A, bias=False, dtype=self.dtype, backend=backend, seed=seed_of(rng))
        self._own("query", np.zeros(A))
        self._own("score_weight", _score_weight(A, rng))

    def children(self):
        return {"k_proj": self.k_proj}

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "attention_size": self.attention_size, "heads": self.heads}

    def forward(self, x, mask=None, *, lengths=None, return_weights=False, cache=True):
        """x (B,T,D), mask (B,T) bool or lengths (B,), as for ``LSTM`` -> y (B,heads*D), cache; with return_weights
        Weighted(y, weights (B,heads,T)), cache.  A row without a real step has y 0 and weights 0.

        Raises TypeError or ValueError for what does not fit; warns with OneKeyWarning if x has one step."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = mask_of(x, mask, lengths)
        returns, keeps = flag("return_weights", return_weights), flag("cache", cache)
        attention.warn_of_one_key(x.shape[1], stacklevel=2)
        x = select(x, mask)
        k, k_cache = self.k_proj.forward(x, cache=keeps)
        q = np.tile(self._param("query"), (len(x), 1, 1))
        v = np.tile(x, self.heads)                              # each head has a mean of all of x
        everyone = np.ones((len(x), 1), bool)
        context, attended = attention.compute(self.backend, q, k, v, self._param("score_weight"), mask, everyone, False,
                                              self.heads)
        y = context[:, 0].copy()
        kept = Cache(self.identity, (k_cache,), attended, mask) if keeps else None
        return Weighted(y, attention.attention_weights(attended)[:, :, 0]) if returns else y, kept

    def backward(self, cache, dy):
        """The gradient of y (B,heads*D) -> dx (B,T,D), 0 at masked steps; adds to ``grads``."""
        _, (k_cache,), attended, mask, _ = own_cache(cache, Cache, self.identity)
        dy = floats("dy", dy, self.dtype, (len(mask), self.output_size), ("B", "F"))
        dq, dk, dv, dw = attention.compute_backward(attended, dy[:, None])          # y = context[:, 0]
        dx = dv.reshape(*mask.shape, self.heads, self.input_size).sum(axis=2)       # v = tile(x, heads)
        dx += self.k_proj.backward(k_cache, dk)                                     # k = k_proj(x)
        self._add_grads({"query": dq.sum(axis=(0, 1)), "score_weight": dw})         # q = tile(query)
        return dx


def _score_weight(A, rng):
    """Glorot uniform, for a product of A numbers with one result."""
    return np.zeros(A) if rng is None else glorot(1, A, A + 1, rng)[0]


def _dividing(heads, **widths):
    heads = positive("heads", heads)
    if any(width % heads for width in widths.values()):
        wanted = " and ".join(f"{name}={width}" for name, width in widths.items())
        raise ValueError(f"heads: expected a number that divides {wanted}, got {heads}")
    return heads
