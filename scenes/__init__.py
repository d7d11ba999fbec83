"""Frames in, official score out: nuScenes tables, geometry, images, the synthetic world, evaluation."""
