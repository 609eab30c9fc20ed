"""Loops that train a method on a stream."""
