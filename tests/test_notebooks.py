"""The notebooks are those of the scripts as they are, run from start to end."""
import hashlib
import json
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_as_new_as_its_script(script):
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert notebook["metadata"]["script_sha256"] == hashlib.sha256(script.read_bytes()).hexdigest(), (
        f"{script.name} has been edited since: python tutorials/build_notebooks.py {script.name[:2]}")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert "stream" in kinds and "error" not in kinds
    assert f"pictures/{script.stem}.png" in notebook["cells"][-1]["source"][-1]


def test_there_is_a_notebook_for_each_script_and_a_line_on_the_shelf():
    """The shelf, tutorials/README.md, names every script, in their order, and so does the project's README."""
    assert [path.stem for path in sorted(TUTORIALS.glob("*.ipynb"))] == [script.stem for script in SCRIPTS]
    for page in (TUTORIALS / "README.md", TUTORIALS.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        places = [text.find(script.stem) for script in SCRIPTS]
        assert -1 not in places and places == sorted(places), page
