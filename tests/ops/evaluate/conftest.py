"""Makes the fixtures of this folder importable and pytest-visible."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
