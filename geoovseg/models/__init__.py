"""Upstream models behind a few verbs, and how their weights are found, fetched and loaded."""
