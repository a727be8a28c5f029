"""Every tutorial runs from start to end, and its picture is there."""
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "tutorials"


@pytest.mark.long
@pytest.mark.parametrize("script", sorted(TUTORIALS.glob("[0-9][0-9]_*.py")), ids=lambda path: path.stem)
def test_tutorial_runs(script, tmp_path):
    """In a copy of the folder, so that the pictures that belong to the text stay as they are.  Each takes less than two
    minutes on two cores, the first compilation included; here it has twice that, since cores of a shared machine may
    be at half their speed."""
    copied = tmp_path / script.name
    copied.write_text(script.read_text())
    (tmp_path / "data").symlink_to(TUTORIALS / "data")
    done = subprocess.run([sys.executable, copied], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout and done.stdout.strip().endswith("seconds")
    assert (tmp_path / "pictures" / f"{script.stem}.png").stat().st_size > 10_000
    assert (TUTORIALS / "pictures" / f"{script.stem}.png").exists(), "the committed picture"
