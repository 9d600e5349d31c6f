"""A stock transformers checkpoint: what can be folded into one, why not, and how. For `vlmend.export.hf`."""
