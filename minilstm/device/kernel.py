"""How a kernel is written here.

    @kernel(threads=256)
    def add(x: F1, y: F1, n: Int):
        i = cuda.grid(1)
        if i < n:
            y[i] += x[i]

A kernel is a function that every thread of a launch runs.  Its annotations are the types of its arguments, so that it
can be compiled without any argument at hand; blocks are one-dimensional and their size belongs to the kernel, which
often has it in its formulas; the grid is said at the launch.  Sizes that are known when a kernel is made are constants
of the function around it, which returns the kernel.

``unroll(n)`` is ``range(n)`` and says that the loop is to be written out: Numba has no such wish, and NVVM unrolls
loops of some hundred instructions only.  So the source of a kernel is rewritten before it is compiled.  In Python, and
so in the simulator, the loop stays a loop, with the same lines.
"""
import ast
import copy
import functools
import inspect
import textwrap

from numba import types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

# F: float32, I: int32, B: bool; with the number of axes of a C-contiguous array
F1, F2, F3, F4 = (types.Array(types.float32, axes, "C") for axes in (1, 2, 3, 4))
I1, I2 = (types.Array(types.int32, axes, "C") for axes in (1, 2))
B1, B2, B3 = (types.Array(types.boolean, axes, "C") for axes in (1, 2, 3))
Float, Int = types.float32, types.int32


class Kernel:
    """A function for the threads of a GPU, and how it is to be launched.

    threads        of a block, and so the launch bound: the compiler may use 65536 / (threads * blocks_per_sm) registers
    blocks_per_sm  that have to fit into one multiprocessor together
    shared_bytes   of dynamic shared memory
    resident       True: its blocks wait for each other, so all of them must be on the chip together: a launch of more
                   than multiprocessors * blocks_per_sm is refused
    """

    def __init__(self, function, threads, blocks_per_sm=1, shared_bytes=0, resident=False):
        self.function, self.threads, self.blocks_per_sm = function, threads, blocks_per_sm
        self.shared_bytes, self.resident = shared_bytes, resident
        self.name = function.__name__
        self.parameters = tuple(inspect.signature(function).parameters)
        self.types = tuple(function.__annotations__[name] for name in self.parameters)
        self.arrays = tuple((as_dtype(type_.dtype), type_.ndim) if isinstance(type_, types.Array) else None
                            for type_ in self.types)                # (dtype, axes) of an array, None for a number

    @functools.cached_property
    def unrolled(self):
        """The function with its ``unroll`` loops written out, as it is compiled."""
        return written_out(self.function)


def kernel(threads, **options):
    """Make a Kernel of the function below."""
    return lambda function: Kernel(function, threads, **options)


def device_function(function):
    """Mark a function that kernels call and that uses ``cuda`` or ``ptx``: compiled into them, and simulated with
    them, its ``unroll`` loops written out in both.  Formulas that use neither need no mark."""
    function.runs_on_gpu = True

    @overload(function, strict=False, jit_options={"forceinline": True})
    def compiled(*arguments):
        return written_out(function)

    return function


def unroll(n):
    return range(n)


# ------------------------------------------------------------------------------------------------- loops written out

def written_out(function):
    """The function with every ``for k in unroll(n)`` replaced by n copies of its body, k a constant in each.  n may use
    what the function is closed over."""
    if "unroll" not in function.__code__.co_names:
        return function
    names = dict(function.__globals__)
    names.update(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ())))
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    tree.body[0].decorator_list = []
    for argument in tree.body[0].args.args:
        argument.annotation = None
    tree = ast.fix_missing_locations(_WriteOut(names).visit(tree))
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    exec(compile(tree, inspect.getsourcefile(function), "exec"), names)
    return names[function.__name__]


class _WriteOut(ast.NodeTransformer):
    def __init__(self, names):
        self.names = names

    def visit_For(self, node):
        call = node.iter
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "unroll"):
            return self.generic_visit(node)
        count = eval(compile(ast.Expression(call.args[0]), "<unroll>", "eval"), dict(self.names))
        copies = []
        for value in range(count):
            for statement in node.body:
                statement = self.visit(_Constant(node.target.id, value).visit(copy.deepcopy(statement)))
                copies += statement if isinstance(statement, list) else [statement]
        return copies


class _Constant(ast.NodeTransformer):
    """Replaces reads of a name by a number."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def visit_Name(self, node):
        if node.id == self.name and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self.value), node)
        return node
