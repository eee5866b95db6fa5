"""Procedural aerial scenes with exact ground truth, and the small CLIP trained on them."""
