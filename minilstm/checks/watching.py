"""Watching a function run, as a debugger would: every assignment to a local name, the line that made it, and what the
line knew.

    with Watch(cell.step) as watch:
        net.forward(x)
    watch.calls         for each call of the function a list of Assignment
"""
import ast
import functools
import inspect
import sys
from typing import NamedTuple

import numpy as np


class Assignment(NamedTuple):
    """``name = value``, as it happened."""
    name: str
    value: np.ndarray
    line: str               # of the code, with its comment; empty for what the watched function was given
    node: ast.AST           # the expression on the right of the line, None for what the watched function was given
    scope: dict             # of the names in the expression: name -> value, as they were before the line
    globals: dict           # of the module in which the line stands
    argument: bool          # True: an argument of a formula, written where the formula is called
    outer: bool             # True: in the watched function itself, False: in a formula that it calls


class Watch:
    """While it is open: for every call of ``function``, the assignments to local names in it, in the formulas that it
    calls, and in the functions ``within``, as ``calls``: a list of lists of Assignment.  Of arrays alone, and not of
    matrices of weights and their gradients, which have capital letters: they would fill the memory.

    A call that returns an array hands it on: the array is assigned twice, inside under the name that it has there, and
    then outside."""

    def __init__(self, function, within=()):
        self.calls = []
        self._outer = function.__code__
        formulas = [f for f in function.__globals__.values() if inspect.isfunction(f) and _is_formula(f)]
        self._codes = {self._outer, *(f.__code__ for f in (*formulas, *within))}

    def __enter__(self):
        self._previous = sys.gettrace()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *exception):
        sys.settrace(self._previous)

    def _on_call(self, frame, event, arg):
        """Python calls this at the beginning of a function, and what it returns before each line and at the end."""
        if frame.f_code not in self._codes:
            return None
        seen = dict(frame.f_locals)                         # the arguments
        outer = frame.f_code is self._outer
        if outer:
            self.calls.append([])
            self._note(seen, "", None, {}, {}, argument=False, outer=True)
        else:
            self._note_arguments(frame)
        line = frame.f_lineno

        def on_line(frame, event, arg):
            nonlocal line
            changed = {name: value for name, value in frame.f_locals.items() if seen.get(name) is not value}
            if changed:
                text, node = _statements(frame.f_code)[line]
                self._note(changed, text, node, seen, frame.f_globals, argument=False, outer=outer)
                seen.update(changed)
            line = frame.f_lineno
            return on_line

        return on_line

    def _note_arguments(self, frame):
        """The arguments of a formula, with the expressions that the calling line has for them."""
        caller = frame.f_back
        if caller.f_code not in self._codes:
            return
        text, node = _statements(caller.f_code)[caller.f_lineno]
        scope = caller.f_locals
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and _code_of(call.func, scope, caller.f_globals) is frame.f_code:
                names = frame.f_code.co_varnames[:frame.f_code.co_argcount]
                for name, given in zip(names, call.args):
                    self._note({name: frame.f_locals[name]}, text, given, scope, caller.f_globals, argument=True,
                               outer=caller.f_code is self._outer)

    def _note(self, values, line, node, scope, module, argument, outer):
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else ()
        known = {name: scope[name] for name in names if name in scope}
        self.calls[-1] += [Assignment(name, value, line, node, known, module, argument, outer)
                           for name, value in values.items() if isinstance(value, np.ndarray) and name.islower()]


def _is_formula(function):
    """Is it mathematics of one unit, such as ``lstm.forward``?  Then its lines belong into the table."""
    return function.__name__.startswith(("forward", "backward")) and not function.__name__.endswith("_row")


def _code_of(node, scope, module):
    """The code of the function that a name stands for; None for anything else."""
    found = scope.get(node.id, module.get(node.id)) if isinstance(node, ast.Name) else None
    return getattr(found, "__code__", None)


@functools.cache
def _statements(code):
    """Number of a line in a file -> the statement on it, with its comment, and the expression on its right or that it
    returns, for the lines of one function."""
    lines, first = inspect.getsourcelines(code)
    indent = len(lines[0]) - len(lines[0].lstrip())
    found = {}
    for node in ast.walk(ast.parse("".join(line[indent:] for line in lines))):
        if isinstance(node, (ast.Assign, ast.Return)):
            text = " ".join(line.strip() for line in lines[node.lineno - 1:node.end_lineno])
            formula, _, comment = text.partition("#")
            text = formula.strip() + (f"    # {comment.strip()}" if comment else "")
            found |= dict.fromkeys(range(first + node.lineno - 1, first + node.end_lineno), (text, node.value))
    return found
