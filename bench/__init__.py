"""What is measured, on the servers that the tests use too."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "faults")]
