"""Faults that a study survives; `make faults` runs the long sweeps, `make test` a sample of each."""
