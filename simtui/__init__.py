"""The terminal side of simtui: commands, screens, pictures in characters; computes nothing that the engine computes."""
