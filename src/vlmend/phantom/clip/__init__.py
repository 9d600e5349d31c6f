"""phantom-clip: a small CLIP trained from scratch, whose faults are known."""
