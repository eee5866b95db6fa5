"""A run: what is decided before the first pixel, the stream from windows to parts, and its state on disk."""
