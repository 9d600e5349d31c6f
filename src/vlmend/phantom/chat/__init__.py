"""The generative phantom and its clean twin."""
