"""The widgets: each draws finished data line by line and knows nothing of where it came from."""
