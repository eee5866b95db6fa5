"""Where windows lie, how they are gathered, and how their scores become one mosaic; no files here."""
