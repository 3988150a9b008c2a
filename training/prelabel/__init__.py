"""A whole project asked in words: what the model finds becomes predictions, one for each task, with an undo.

``look`` asks about every picture and writes what came of it to the job's folder; ``job`` then pushes it.
"""
