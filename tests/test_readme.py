"""The README's examples run, and print what the README says they print."""
import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e-?\+?\d+)?")


@pytest.mark.parametrize("code, printed", EXAMPLES)
def test_example_prints_what_is_written(code, printed, tmp_path, monkeypatch):
    """The same words, and numbers as near as another machine's last digits allow: rounding errors within a factor of a
    thousand, a loss near zero within a factor of three, all others within 0.1."""
    for module in re.findall(r"^import (torch)$", code, re.MULTILINE):
        pytest.importorskip(module, reason="an example with PyTorch: it is not installed (pip install -e '.[peers]')")
        pytest.importorskip("onnx", reason="an example with ONNX: it is not installed (pip install -e '.[peers]')")
    monkeypatch.chdir(tmp_path)                             # where an example may write files
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    found = output.getvalue()
    assert NUMBER.sub("#", found).split() == NUMBER.sub("#", printed).split()
    for number, expected in zip(map(float, NUMBER.findall(found)), map(float, NUMBER.findall(printed))):
        size = abs(expected)
        limit = 1000 * size if size < 1e-4 else 3 * size if size < 0.1 else size + 0.1
        assert abs(number) <= limit and (size < 0.1 or abs(number - expected) < 0.1)


def test_there_are_examples():
    assert len(EXAMPLES) == 13


def test_files_of_the_reading_order_exist():
    for path in re.findall(r"`((?:minilstm|tests|tutorials|benchmarks)/[\w/.]+)`", README.read_text()):
        assert (README.parent / path).exists(), path
