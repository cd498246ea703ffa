"""Lets the tests of this folder import `ops_oracle`, which importlib mode does not by itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
