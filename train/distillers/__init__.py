"""Knowledge distillation losses, one file each, one interface (``base.py``)."""
