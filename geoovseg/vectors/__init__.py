"""From label rasters to polygons: one clean, styled coverage at any size. Read vectorize.py first."""
