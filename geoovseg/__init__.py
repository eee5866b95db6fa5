"""Open-vocabulary segmentation of geospatial rasters."""
