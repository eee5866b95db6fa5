"""Raster files: opening them, describing them as VRTs, finishing them as COGs, and where they lie on the ground."""
