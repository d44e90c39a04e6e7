"""Checkpoints of the user's own training: found in a folder, freed of pickles, fitted to a backbone.

`find` and `convert` import no torch; a pickle is only ever read by the child process of `convert`.
"""
