"""The parts of the teacher stage: a teacher, one scene streamed through it, the queue to the disk, the engines."""
