"""Fine-tuning: methods, the training loop, checkpoints, evaluation, and a run from epoch 0 to its end."""
