"""Where windows lie, how they are gathered, and how their scores are blended; no files here."""
