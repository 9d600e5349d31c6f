"""What exporters to serving engines share: greedy tokens, and the proof of a plug-in on our own model."""
