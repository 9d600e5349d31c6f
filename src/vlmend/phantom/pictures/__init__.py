"""The pictures of all phantoms: things, people, words and scenes, each a pure function of its arguments."""
