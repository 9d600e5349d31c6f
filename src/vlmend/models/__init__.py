"""The only package that knows transformers' model classes."""
