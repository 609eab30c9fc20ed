"""Streams of non-stationary data: tasks, datasets, phases. No torch in this folder."""
