"""Pictures of a cache: cameras and boxes, the BEV feature, temporal attention, queries, whole scenes, differences."""
