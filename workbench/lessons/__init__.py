"""Exercises of the lessons in the notebooks 30 to 39: what an answer is held against."""
