# SPDX-License-Identifier: MIT
"""The sample of the README runs as it stands."""
import re
from pathlib import Path


def test_sample(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    printed = capsys.readouterr().out
    accuracy, density, foreign = map(float, re.findall(r"-?\d+\.\d+", printed))
    assert accuracy > 0.9 and density > foreign + 5, printed
