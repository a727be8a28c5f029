"""What the loops over time do with rows besides the formulas: add, multiply, look at a part, fade, and zoneout.

As loops, like those of ``machine/rows.py``."""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ..cells.activations import ONE, formula
from ..machine.rows import copy_row


@intrinsic
def window(typingctx, array, start, rows, columns):
    """(rows, columns) of the numbers of a contiguous array, from the flat index ``start`` on: a view, borrowed like the
    one of ``from_column``."""
    view = array.copy(ndim=2, layout="C")

    def codegen(context, builder, signature, args):
        source = context.make_array(array)(context, builder, args[0])
        made = context.make_array(view)(context, builder)
        size = ir.Constant(ir.IntType(64), array.dtype.bitwidth // 8)
        populate_array(made, data=builder.gep(source.data, [args[1]]), shape=args[2:],
                       strides=(builder.mul(args[3], size), size), itemsize=size, meminfo=None)
        return made._getvalue()

    return view(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def from_column(typingctx, array, first):
    """array[:, first:] of a contiguous array of two axes, but still of its shape: a loop over its columns then becomes
    vector instructions, as that over a slice does not.  The last ``first`` columns are not there: nobody may touch
    them."""
    def codegen(context, builder, signature, args):
        shifted = context.make_array(array)(context, builder, args[0])
        shifted.data = builder.gep(shifted.data, [args[1]])
        shifted.meminfo = cgutils.get_null_value(shifted.meminfo.type)          # borrowed: not to outlive ``array``
        shifted.parent = cgutils.get_null_value(shifted.parent.type)
        return shifted._getvalue()

    return array(array, types.intp), codegen


@formula
def add_row(target, source):
    """target += source, as many numbers as target has."""
    for j in range(target.shape[0]):
        target[j] += source[j]


@formula
def multiply_row(target, factor):
    """target *= factor, as many numbers as target has."""
    for j in range(target.shape[0]):
        target[j] *= factor[j]


@formula
def fade(states, decay, faded):
    """Fills ``faded`` (S,H): the states (S,H), of which the first, h, is multiplied by decay (R,)."""
    for k in range(states.shape[0]):
        copy_row(faded[k], states[k])
    multiply_row(faded[0, :decay.shape[0]], decay)


@formula
def fade_backward(states, decay, d_state, d_decay):
    """The reverse of ``fade``.  d_state (S,H): of ``faded`` on entry, of ``states`` on return.  Fills d_decay (R,)."""
    for j in range(decay.shape[0]):
        d_decay[j] = d_state[0, j] * states[0, j]                   # faded[0] = decay * states[0]
        d_state[0, j] *= decay[j]                                   # faded[0] = decay * states[0]


@formula
def mix(zone, before, new, after):
    """Zoneout (``reference.py``).  All (S,H).  Fills ``after``.  What stays whole stays bit for bit, even beside an
    infinite ``new``."""
    for k in range(zone.shape[0]):
        for j in range(zone.shape[1]):
            mixed = zone[k, j] * before[k, j] + (ONE - zone[k, j]) * new[k, j]
            after[k, j] = before[k, j] if zone[k, j] == ONE else mixed


@formula
def mix_backward(zone, d_state, stay):
    """The reverse of ``mix``.  All (S,H).  d_state: of ``after`` on entry, of ``new`` on return.  Fills ``stay``: the
    part of the gradient of ``before`` that does not go through the cell."""
    for k in range(zone.shape[0]):
        for j in range(zone.shape[1]):
            stay[k, j] = zone[k, j] * d_state[k, j]                 # after = zone * before + (1 - zone) * new
            d_state[k, j] = (ONE - zone[k, j]) * d_state[k, j]      # after = zone * before + (1 - zone) * new
