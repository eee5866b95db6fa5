"""Processes that tests start are as of a plain install, without transformers, which open_clip imports where it is."""

import sys

sys.modules["transformers"] = None  # type: ignore[assignment]
