"""Make the notebooks from the tutorials: each script becomes a notebook beside it, run from start to end, with what it
prints and its picture.

    pip install -e '.[tutorials,gpu]'
    python tutorials/build_notebooks.py                     # all of them: a quarter of an hour
    python tutorials/build_notebooks.py 03 07               # those whose names begin so

The script is the source, the notebook is made of it: whoever edits a script builds its notebook again.  A test compares
the two (``tests/test_notebooks.py``).
"""
import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

FOLDER = Path(__file__).parent


def build(script):
    """Run the script as a notebook, in its folder, and write this beside it."""
    notebook = jupytext.read(script, fmt="py:percent")
    here = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here).execute()
    picture = f"![The picture of this tutorial](pictures/{script.stem}.png)"
    notebook.cells.append(nbformat.v4.new_markdown_cell(picture, id="picture"))
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"},
                         "script_sha256": hashlib.sha256(script.read_bytes()).hexdigest()}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    nbformat.validate(notebook)
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def main(beginnings):
    scripts = [script for script in sorted(FOLDER.glob("[0-9][0-9]_*.py"))
               if not beginnings or script.name.startswith(tuple(beginnings))]
    if not scripts:
        sys.exit(f"no tutorial begins with {' or '.join(beginnings)}")
    for script in tqdm(scripts, unit="notebook"):
        build(script)


if __name__ == "__main__":
    main(sys.argv[1:])
