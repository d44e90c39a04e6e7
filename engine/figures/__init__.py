"""The figures and tables of a paper, drawn from what `engine.analysis` found; computes nothing of its own."""
