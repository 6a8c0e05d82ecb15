"""The error where scikit-learn is not installed."""

from __future__ import annotations

import subprocess
import sys


def test_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import graphc.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: graphc.sklearn needs scikit-learn, which is not installed: "
        "pip install 'graphc-nn[sklearn]'"
    )
