"""The three recipes that pre-train the bundled backbones on generated scenes; see `sample_runs/pretrain.py`."""
