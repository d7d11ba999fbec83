"""A small driving world of our own, written in genuine nuScenes v1.0 form.

It exists so that every stage runs without the data set, and it is made to need memory: things pass behind others, one
picture never tells a speed, and what was seen within the last seconds is scored although it is hidden now.
"""

from scenes.synthetic.options import GENERATOR_VERSION, WorldOptions
from scenes.synthetic.write import is_world, write_world

__all__ = ["GENERATOR_VERSION", "WorldOptions", "is_world", "write_world"]
