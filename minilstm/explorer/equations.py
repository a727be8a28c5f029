"""The lines of a cell's code, with the numbers of a step in them.

    c = f * c_prev + i * g                  the line as it stands in ``cells/``, taken from the running code
      = 0.468 * 1.8 + 0.0974 * -0.974       the same for one unit: a number in the place of every name
      = 0.748                               what the code computed

Of a matrix product one unit sees a sum, ``x @ W.T``, whose terms are kept beside it.  Arrays of all blocks together,
such as a, and what ``cells/products.py`` makes on its way, are put in where they are used, so that a_i is one line:
x @ W.T + b_ih + h_prev @ U.T + b_hh.  No formula stands here.
"""
import ast
import functools
import inspect
import operator
from typing import NamedTuple

import numpy as np

from ..cells import activations, products

SIGNS = {ast.Add: ("+", 1), ast.Sub: ("-", 1), ast.Mult: ("*", 2), ast.Div: ("/", 2)}
ATOM = 3                # binds tighter than any sign


class Sum(NamedTuple):
    """A product of matrices, for some columns."""
    text: str               # such as x @ W.T
    values: np.ndarray      # (n,)
    left: np.ndarray        # (K,)      values = left @ right
    right: np.ndarray       # (K,n)


class Line(NamedTuple):
    """One line of code, for one step and n units, or input features."""
    name: str               # what it assigns to
    axis: str               # of its numbers: "unit", "output" (of a projection), or "feature"
    code: str               # the statement, as it stands in the file
    comment: str            # behind it: in a backward pass, the line that it reverses
    symbols: str            # its expression; empty for what the step was given
    numbers: tuple          # the same as text, with an array (n,) in the place of every name, or a single number
    value: np.ndarray       # (n,)
    sums: tuple             # of Sum, those in the expression


class Shape(NamedTuple):
    """Of a layer that was watched with a batch of one row."""
    H: int
    R: int                  # width of h
    blocks: tuple           # names, of W and U
    units: np.ndarray       # those that are wanted


WATCHED = (products.products, products.products_backward, products.sums, products.sums_backward)    # beside formulas


def lines_of(forward, backward, shape):
    """The assignments of one step -> its lines forward, those backward."""
    before = _Step(forward, shape, {}, {})
    after = _Step(backward, shape, before.names, before.made)
    return before.lines(), after.lines()


# ------------------------------------------------------------------------------------------------------ one direction

class _Step:
    """The assignments of a step in one direction, and what became of the arrays.

    An array goes by one name: the one it has in the function of the whole step, if it has one there, since a formula
    may call its arguments otherwise."""

    def __init__(self, assignments, shape, names, made):
        self.shape = shape
        self.names = dict(names)        # id of an array -> its name
        self.made = dict(made)          # id of an array -> the Assignment that made it
        self.new = []                   # the Assignments that made an array here
        self.used = set()               # ids of arrays that were put in
        settled = set(names)
        for a in assignments:
            if id(a.value) not in self.made:
                self.made[id(a.value)] = a
                self.new.append(a)
            if id(a.value) not in settled:
                self.names[id(a.value)] = a.name
                if a.outer and not a.argument:
                    settled.add(id(a.value))

    def lines(self):
        """Those of one number for each unit or feature; and of all blocks together, those that were put in nowhere."""
        found = []
        for place, a in enumerate(self.new):
            if (axis := self._axis(a)) and not self._passes(a.value):
                found.append((place, self._line(a, axis)))
        for place, a in enumerate(self.new):
            if self._in_blocks(a.value) and id(a.value) not in self.used and not _joins(a):
                found += [(place, self._line(a, "unit", block)) for block in range(len(self.shape.blocks))]
        return [line for _, line in sorted(found, key=operator.itemgetter(0))]

    def _axis(self, a):
        """What the numbers of an assignment belong to, None for what is no line of its own."""
        name, value = self.names[id(a.value)], a.value
        if value.ndim != 2 or len(value) != 1 or name in ("own", "d_own"):
            return None
        if name in ("x", "dx"):
            return "feature"
        return {self.shape.R: "output", self.shape.H: "unit"}.get(value.shape[1])

    def _in_blocks(self, value):
        """Is it of all blocks together?"""
        width = len(self.shape.blocks) * self.shape.H
        return value.shape == (1, width) and width > self.shape.H and self.names[id(value)] not in ("x", "dx")

    def _passes(self, value):
        """Is it put in where it is used?  Not what the step was given, and not gradients, which are results."""
        a = self.made[id(value)]
        if a.node is None or a.name.startswith("d"):
            return False
        of_products = a.globals["__name__"] == products.__name__
        return of_products or self._in_blocks(value) and not _joins(a)

    def _line(self, a, axis, block=0):
        """block: where the array is of all blocks together, the one that is wanted."""
        name, code, comment = self.names[id(a.value)], *a.line.partition("    # ")[::2]
        if self._in_blocks(a.value):
            name = f"{name}[{self.shape.blocks[block]}]"
        columns = self._columns(axis, a.value, block)
        text = _Text(self, columns)
        symbols, numbers = "", ()
        if a.node is not None:
            node = a.node
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.split":     # a block of what is split
                text.columns = columns + _place(a) * self.shape.H
                node = node.args[0]
            symbols, numbers, _ = text.write(a, node)
        return Line(name, axis, code, comment, symbols, tuple(numbers), a.value[0, columns], tuple(text.sums))

    def _columns(self, axis, value, block):
        """Where the numbers stand in an array."""
        if axis == "feature":
            return np.arange(value.shape[1])
        units = self.shape.units
        return units[units < self.shape.R] if axis == "output" else block * self.shape.H + units

    def put_in(self, value):
        """The Assignment whose expression stands for this array in a line, None where its name does."""
        if id(value) not in self.made or not self._passes(value):
            return None
        self.used.add(id(value))
        return self.made[id(value)]


def _place(a):
    """Which of the names on the left of a line is that of this Assignment: 0, 1 ..."""
    [names] = ast.parse(a.line).body[0].targets
    return [name.id for name in names.elts].index(a.name)


def _joins(a):
    """Does it only put the blocks together?"""
    return isinstance(a.node, ast.Call) and ast.unparse(a.node.func) == "np.concatenate"


def evaluate(node, a):
    """The value of an expression in the line of an Assignment."""
    return eval(compile(ast.Expression(node), "<line>", "eval"), a.globals, a.scope)


# ----------------------------------------------------------------------------------------------------- one expression

class _Text:
    """Writes an expression, as symbols and as the numbers in some columns; ``sums`` are the products in it."""

    def __init__(self, step, columns):
        self.step, self.columns, self.sums = step, columns, []

    def write(self, a, node):
        """An expression in the line of an Assignment -> symbols, numbers, how tight it binds."""
        if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
            sign, tight = SIGNS[type(node.op)]
            left = self._within(a, node.left, tight)
            right = self._within(a, node.right, tight + isinstance(node.op, (ast.Sub, ast.Div)))
            return f"{left[0]} {sign} {right[0]}", [*left[1], f" {sign} ", *right[1]], tight
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return self._sum(a, node)
        if isinstance(node, ast.Call):
            return self._call(a, node)
        value = evaluate(node, a)
        if source := self.step.put_in(value):
            return self.write(source, source.node)
        return self._leaf(self._name(node, value), value)

    def _within(self, a, node, tight):
        """The same, in brackets where it would come apart."""
        symbols, numbers, own = self.write(a, node)
        return (symbols, numbers) if own >= tight else (f"({symbols})", ["(", *numbers, ")"])

    def _leaf(self, symbols, value):
        if np.ndim(value) == 0:
            return f"{float(value):g}", [f"{float(value):g}"], ATOM
        return symbols, [value[0, self.columns] if value.ndim == 2 else value[self.columns]], ATOM

    def _name(self, node, value):
        """How an array is called: b_ih and not weights.b_ih."""
        return self.step.names.get(id(value)) or ast.unparse(node).replace("weights.", "")

    def _sum(self, a, node):
        left, right = evaluate(node.left, a), evaluate(node.right, a)
        text = f"{self._product_name(a, node.left)} @ {ast.unparse(node.right).replace('weights.', '')}"
        weights = right[:, self.columns]
        values = left[0] @ weights
        self.sums.append(Sum(text, values, left[0], weights))
        return text, [values], 2

    def _product_name(self, a, node):
        """The left side of a product: an array by its name, what is heard of it as a product."""
        while isinstance(node, ast.Call):
            a, node = _expanded(a, node)
        value = evaluate(node, a)
        return self._name(node, value) if isinstance(node, ast.Name) else f"({ast.unparse(node)})"

    def _call(self, a, node):
        function = evaluate(node.func, a)
        if function.__module__ == products.__name__:
            return self.write(*_expanded(a, node))
        if function.__module__ != activations.__name__:
            return self._leaf(ast.unparse(node).replace("weights.", ""), evaluate(node, a))
        symbols, numbers, _ = self.write(a, node.args[0])
        name = ast.unparse(node.func)
        if not name.startswith("d_") or _calls(function):
            return f"{name}({symbols})", [f"{name}(", *numbers, ")"], ATOM
        return f"{name}({symbols})", ["(", *self.write(*_expanded(a, node))[1], ")"], ATOM


@functools.cache
def _returned(function):
    """The expression that a function of one line returns."""
    tree = ast.parse(inspect.getsource(function))
    return next(node.value for node in ast.walk(tree) if isinstance(node, ast.Return))


def _calls(function):
    return any(isinstance(node, ast.Call) for node in ast.walk(_returned(function)))


def _expanded(a, call):
    """A call of a function of one line -> Assignment, node: the line itself, with what the call gave it."""
    function = evaluate(call.func, a)
    names = list(inspect.signature(function).parameters)
    scope = {name: evaluate(given, a) for name, given in zip(names, call.args)}
    inner = a._replace(globals=function.__globals__, scope=scope)
    node = _returned(function)
    while isinstance(node, ast.IfExp):
        node = node.body if evaluate(node.test, inner) else node.orelse
    if isinstance(node, ast.Name) and node.id in names:                 # it hands an argument on: as the caller has it
        return a, call.args[names.index(node.id)]
    return inner, node
