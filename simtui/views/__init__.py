"""What each view says, as plain data made from the engine's tables; nothing here draws or reads a file."""
