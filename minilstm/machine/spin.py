"""To wait for another thread without sleeping.

Waking a thread that sleeps takes tens of microseconds, a step of a small layer takes fewer.  A thread that looks at a
number until it changes, in compiled code that holds no lock of the interpreter, sees the change within one.
"""
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .kernel import kernel


@intrinsic
def _as_it_is_now(typingctx, array, index):
    """array[index], from memory at each call: a compiler may take a plain load out of a loop that changes nothing."""
    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        loaded = builder.load_atomic(builder.gep(data, [args[1]]), "monotonic", array.dtype.bitwidth // 8)
        assert loaded.type == ir.IntType(array.dtype.bitwidth)
        return loaded

    return array.dtype(array, types.intp), codegen


@kernel
def changes(numbers, index, value, looks):
    """Does numbers[index], of int64, become another than ``value`` while we look at it so many times?"""
    for _ in range(looks):
        if _as_it_is_now(numbers, index) != value:
            return True
    return False
