"""Files that somebody else has made, to mislead or to break; `make faults` runs the long sweeps, `make test` a sample."""
