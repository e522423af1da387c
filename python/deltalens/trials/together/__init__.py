"""Latents that are tried together: groups of them, and choosing them one after the other."""
