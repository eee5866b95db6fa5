"""The input raster as three bands and a mask, read window by window."""
