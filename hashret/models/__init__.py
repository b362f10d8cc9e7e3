"""The networks: attention, VGG, encoders ready to use, checkpoints, weights to start from."""
