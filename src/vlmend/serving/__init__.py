"""A model and its mends behind an OpenAI-compatible address."""
