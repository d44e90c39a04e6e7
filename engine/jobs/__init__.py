"""How a study is run: launched away from the terminal, scheduled one process a device, followed from anywhere."""
