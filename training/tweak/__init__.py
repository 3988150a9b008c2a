"""The standing boxes of a whole project, tightened: as predictions beside them, or in place with a stored undo.

``look`` asks the engine about every box and writes what it said to the job's folder; ``job`` then pushes it as
predictions, or has ``apply`` write it into the annotations; ``undo`` takes either back.
"""
