"""Camera detectors in pure PyTorch: tensors in, BEV features, queries and boxes out. They open no file but weights."""
