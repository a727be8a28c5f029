"""What the tests of the explorer share: pages of random layers, and the numbers in them."""
import json
import re

import numpy as np

from helpers import masks, random_batch, random_layer
from minilstm.explorer import explore

FUNCTIONS = {"sigmoid": lambda a: 1 / (1 + np.exp(-a)), "tanh": np.tanh, "relu": lambda a: max(a, 0), "d_relu": np.sign}


def read(path):
    """The data in a page; a number that JSON has not, such as NaN, is an error."""
    def no_json(word):
        raise AssertionError(f"{word} is no JSON")

    [content] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(content, parse_constant=no_json)


def random_page(path, kind, D=2, H=3, T=5, B=3, row=1, **options):
    """A page of a random float64 layer, with holes in its mask -> net, arguments of explore, data."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, D, H, dtype="float64", backend="reference", **options)
    batch = random_batch(rng, net, B, T)
    mask = masks(rng, B, T)["holes"]
    mask[row, [0, -1]], mask[row, 1] = True, False
    given = {"x": batch["x"], "mask": mask, "dy": batch["dy"], "row": row}
    explore(net, path=path, **given)
    return net, given, read(path)


def table(view, number):
    """A table as an array, a row for each time: NaN at masked steps."""
    rows = view["tables"][number]
    rows = rows * len(view["times"]) if len(rows) == 1 else rows
    width = next(len(row) for row in rows if row is not None)
    return np.array([row if row is not None and real else [np.nan] * width for row, real in zip(rows, view["real"])])


def strip(view, name):
    """What is drawn under this name, (T,n)."""
    [number] = [number for part in view["strips"].values() for other, _, number in part if other == name]
    return table(view, number)


def shown(number):
    """A number as the page shows it: in four digits, of the seven that it has there."""
    number = float(f"{number:.7g}")
    size = abs(number)
    if size == 0:
        return "0"
    if 1e-3 <= size < 1e4:
        return f"{number:#.4g}".rstrip(".")
    mantissa, exponent = f"{number:.3e}".split("e")
    return f"{mantissa}e{int(exponent):+d}"


PRINTED = re.compile(r"\d\.\d+(?:e[+-]\d+)?|\d+\.\d*")                # a number, not the 1 of a formula


def disagreement(expression, result):
    """An expression and its result, as the page prints them: their difference, beside the largest that the rounding of
    all their numbers explains."""
    def value(text):
        return float(eval(text, dict(FUNCTIONS)))

    allowed = half_a_digit(result)
    for found in PRINTED.finditer(expression):
        moved = float(float(found[0]) + half_a_digit(found[0]))
        allowed += abs(value(expression[:found.start()] + repr(moved) + expression[found.end():]) - value(expression))
    return abs(value(expression) - float(result)) / allowed


def half_a_digit(text):
    """By how much a number may have been rounded to four digits."""
    number = abs(float(text))
    return 0.5 * 10.0**(np.floor(np.log10(number)) - 3) if number else 1e-300
