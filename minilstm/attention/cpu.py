"""Attention, compiled.  Same functions, parameters and results as ``reference``.

1.  The real queries and the real keys are gathered (``gathered.py``): what is masked is not computed.
2.  Scores exist in tiles only, of some queries and some keys: a tile is made, turned into weights, multiplied with the
    values, and forgotten (``tiles.py``).  Backward makes the tiles again.  So memory grows like the number of steps.
3.  All products run in the register blocks of ``matmul/micro_kernel.py``.

What a query computes depends on nothing but the query and the real keys of its row: the results are the same bits for
any number of threads, any batch around it and any padding.

    B  batch     Tq  queries     Tk  keys     A  width of q and k     F  width of v, both with all heads side by side
    slots  real steps, filled up (``gathered.py``)
"""
import numpy as np

from ..machine.buffers import zeros
from ..machine.threads import spread, threads_for
from ..matmul.cpu import lanes_of, no_panels, pack, pack_rows
from .gathered import gather, scatter, sees_of, slots_of
from .reference import additive_weights, dot_product_weights
from .tiles import (
    KEYS, QUERIES, Side, additive_scores, additive_scores_backward, dot_scores, dot_scores_backward, kernels)

__all__ = ["additive", "additive_backward", "additive_weights", "dot_product", "dot_product_backward",
           "dot_product_weights"]

TANH = 20                   # multiply-adds that take as long as a tanh
PARTS = 4                   # of the work, for each thread: whoever is ready first takes the next


# -------------------------------------------------------------------------------------------------------- dot product

def dot_product(q, k, v, key_mask, query_mask, causal, heads, scale):
    """-> context (B,Tq,F), sums (B,heads,Tq,2).  scale: a number, 1 / sqrt(A / heads) for the usual score."""
    plan = Plan(q, k, v, key_mask, query_mask, causal, heads)
    sides = (plan.of_queries(q), ("columns",), scale), (plan.of_keys(k), ()), (plan.of_keys(v), ("panels",))
    return plan.forward(dot_scores, sides, np.empty((heads, 0), q.dtype))                   # score = (scale * q) . k


def dot_product_backward(q, k, v, key_mask, query_mask, causal, heads, scale, context, sums, d_context):
    """The reverse of ``dot_product``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    plan = Plan(q, k, v, key_mask, query_mask, causal, heads)
    sides = ((plan.of_queries(q), ("columns", "panels"), scale), (plan.of_keys(k), ("panels",), scale),
             (plan.of_keys(v), ()))                                                         # score = (scale * q) . k
    return plan.backward(dot_scores, sides, np.empty((heads, 0), q.dtype), context, sums, d_context)[:3]


# ----------------------------------------------------------------------------------------------------------- additive

def additive(q, k, v, w, key_mask, query_mask, causal, heads):
    """w (A,), head by head like the columns of q -> context (B,Tq,F), sums (B,heads,Tq,2)."""
    plan = Plan(q, k, v, key_mask, query_mask, causal, heads, TANH)
    sides = (plan.of_queries(q), ()), (plan.of_keys(k), ("columns",)), (plan.of_keys(v), ("panels",))
    return plan.forward(additive_scores, sides, of_heads(w, heads))


def additive_backward(q, k, v, w, key_mask, query_mask, causal, heads, context, sums, d_context):
    """The reverse of ``additive``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F), dw (A,)."""
    plan = Plan(q, k, v, key_mask, query_mask, causal, heads, TANH)
    sides = (plan.of_queries(q), ()), (plan.of_keys(k), ("columns",)), (plan.of_keys(v), ())
    return plan.backward(additive_scores, sides, of_heads(w, heads), context, sums, d_context)


def of_heads(w, heads):
    """A view (heads,A/heads), read-only as a layer's w is: so one kernel is compiled, and not another for a w that can
    be written to."""
    w = w.reshape(heads, -1)
    w.flags.writeable = False
    return w


# -------------------------------------------------------------------------------------------------------- what both do

SCORES = {dot_scores: dot_scores_backward, additive_scores: additive_scores_backward}


class Plan:
    """Where the real queries and keys of a batch went, who sees whom, and which thread does what."""

    def __init__(self, q, k, v, key_mask, query_mask, causal, heads, cost=1):
        """cost: of one of the A numbers of a score, in multiply-adds."""
        self.shapes = q.shape, k.shape, v.shape
        self.heads, self.lanes = heads, lanes_of(q.dtype)
        self.queries, self.keys = slots_of(query_mask, self.lanes), slots_of(key_mask, self.lanes)
        self.sees = sees_of(query_mask, key_mask, causal, self.queries, self.keys, heads)
        pairs = int((self.queries.count * self.keys.count).sum()) // (1 + causal)
        self.threads = threads_for(pairs * (cost * q.shape[2] + v.shape[2]))

    def of_queries(self, x):
        return gather(x, self.queries, self.heads)

    def of_keys(self, x):
        return gather(x, self.keys, self.heads)

    def forward(self, scores, wanted, w):
        """wanted: for ``sides``, of q, k and v; w (heads,A or 0) -> context, sums."""
        (B, Tq, _), _, (*_, F) = self.shapes
        q, k, v = sides(wanted, self.threads)
        dtype = q.rows.dtype
        context = zeros((len(q.rows), len(v.panels) * self.lanes), dtype)
        sums = np.zeros((len(q.rows), 2), dtype)
        tasks = cut(self._tasks(), 0, QUERIES)
        run, _ = kernels(scores, SCORES[scores])
        lowest = np.finfo(dtype).min
        self._spread(tasks, lambda some: run(q, k, v, w, self.sees, some, lowest, context, sums))
        return (scatter(context, self.queries, self.heads, (B, Tq, F)),
                scatter(sums, self.queries, self.heads, (B, Tq, self.heads * 2)).reshape(
                    B, Tq, self.heads, 2).transpose(0, 2, 1, 3))

    def backward(self, scores, wanted, w, context, sums, d_context):
        """context, sums, d_context as ``reference`` has them -> dq, dk, dv, dw."""
        dtype, lanes, heads = w.dtype, self.lanes, self.heads
        top, total = self.of_queries(np.ascontiguousarray(sums.transpose(0, 2, 1, 3)).reshape(
            *d_context.shape[:2], heads * 2)).T.copy()
        share = np.divide(1, total, where=total != 0, out=np.zeros_like(total))     # of exp(0) in a query's weights
        d_rows = self.of_queries(d_context) * share[:, None]
        delta = np.einsum("nf,nf->n", d_rows, self.of_queries(context))     # of each query: share * d_context . context
        q, k, v, d_side = sides((*wanted, (d_rows, ("columns", "panels"))), self.threads)
        dq, dk, dv = (zeros((len(rows), -(-rows.shape[1] // lanes) * lanes), dtype)
                      for rows in (q.rows, k.rows, v.rows))
        dw = zeros((len(k.rows) // lanes, w.shape[1]), dtype)               # of each vector of keys
        _, run = kernels(scores, SCORES[scores])
        self._spread(self._backward_tasks(), lambda some: run(
            q, k, v, w, d_side, self.sees, some, top, share, delta, dq, dk, dv, dw))
        places = zip((dq, dk, dv), (self.queries, self.keys, self.keys), self.shapes)
        dw = dw.reshape(heads, len(dw) // heads, w.shape[1]).sum(axis=1).ravel()
        return *(scatter(rows, slots, heads, shape) for rows, slots, shape in places), dw

    def _tasks(self):
        """One for each head and row of the batch: (n,7), as ``tiles.kernels`` has them."""
        head = np.repeat(np.arange(self.heads), len(self.queries.count))
        first_query, first_key = (np.add.outer(np.arange(self.heads) * slots.first[-1], slots.first[:-1]).ravel()
                                  for slots in (self.queries, self.keys))
        queries, keys = (np.tile(count, self.heads) for count in (np.diff(self.queries.first), self.keys.count))
        tasks = np.stack([first_query, first_query + queries, first_key, first_key + keys, head,
                          np.ones_like(head), np.ones_like(head)], axis=1)
        return tasks[(queries > 0) & (keys > 0)]

    def _backward_tasks(self):
        """As they are where there are enough of them.  Else the gradients of some queries and those of some keys are
        tasks of their own: a tile is then made twice, but no two threads add to one row."""
        tasks = self._tasks()
        if len(tasks) >= self.threads:
            return tasks
        of_queries, of_keys = cut(tasks, 0, QUERIES), cut(tasks, 2, KEYS)
        of_queries[:, 6], of_keys[:, 5] = 0, 0
        return np.concatenate([of_keys, of_queries])

    def _spread(self, tasks, work):
        parts = min(len(tasks), self.threads * PARTS if self.threads > 1 else 1)
        cuts = [len(tasks) * part // max(parts, 1) for part in range(parts + 1)]
        spread(lambda part: work(tasks[cuts[part]:cuts[part + 1]]), parts, self.threads)


def cut(tasks, column, size):
    """Each task as several, with ranges of at most ``size`` in this column and the next."""
    first, last = tasks[:, column], tasks[:, column + 1]
    counts = -(-(last - first) // size)
    cut = np.repeat(tasks, counts, axis=0)
    turn = np.arange(len(cut)) - np.repeat(np.cumsum(counts) - counts, counts)
    cut[:, column] += turn * size
    cut[:, column + 1] = np.minimum(cut[:, column] + size, cut[:, column + 1])
    return cut


FORMS = {"columns": lambda rows: pack_rows(rows, np.arange(len(rows))), "panels": pack}


def sides(wanted, threads):
    """wanted: for each side its rows (slots,d), the names of the forms that it needs beside them, and, if these are to
    be multiplied by a number, the number -> a list of Sides."""
    made = [{"rows": rows, "columns": no_panels(rows.dtype), "panels": no_panels(rows.dtype)} for rows, *_ in wanted]
    jobs = [(side, form, *scale) for side, (_, forms, *scale) in zip(made, wanted) for form in forms]

    def make(job):
        side, form, *scale = jobs[job]
        side[form] = FORMS[form](side["rows"])
        if scale:
            side[form] *= side[form].dtype.type(scale[0])

    spread(make, len(jobs), threads)
    return [Side(**side) for side in made]
