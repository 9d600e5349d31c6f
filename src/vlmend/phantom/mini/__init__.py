"""phantom-mini: a tiny model of a drawn world, trained from scratch in minutes, whose faults are planted and known."""
