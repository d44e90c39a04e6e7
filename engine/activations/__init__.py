"""Activations of a set of images: taken from a backbone in one pass, kept in content-addressed immutable files."""
