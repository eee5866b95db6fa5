"""The output: label rasters, their names, parts, looks and record, and how they are read again."""
