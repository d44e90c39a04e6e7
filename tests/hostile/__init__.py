"""Files made to mislead or to break; `make faults` runs the long sweeps, `make test` a sample."""
