"""The second generation of the generative phantom: the eye of phantom-clip, words, scenes, refusals in many forms."""
