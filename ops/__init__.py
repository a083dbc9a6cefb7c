"""What is done: one module a stage, each a plain command."""

import os

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # what it warns of we say ourselves, in words
