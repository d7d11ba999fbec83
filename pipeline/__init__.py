"""The programs, one module per make target, and the recipes. ``python -m pipeline --help`` lists them."""
