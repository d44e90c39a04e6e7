"""Datasets of labelled images on disk: read once into an ordered, hashed manifest, decoded once into pixels."""
