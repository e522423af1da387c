"""A model as an object: which one it is, where its parts are, and whether its rows can be read."""
