"""Stimuli: glyphs, scenes, words and views of them."""
