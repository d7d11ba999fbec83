"""What every stage agrees on: frames, boxes, the BEV grid, feature specs, index rows, the manifest.

Nothing here knows torch, zarr, dask or nuscenes-devkit, so every other folder may import it.
"""
