"""The embedded model with known faults."""
