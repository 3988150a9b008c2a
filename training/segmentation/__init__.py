"""Boxes → polygons: a whole project or data set, shared by workers on any number of hosts.

- ``source``: pictures with their boxes, of a project or in files.
- ``trace``: the boxes of one picture → masks of an engine → outlines.
- ``results``: what is done, in one place for all shards.
- ``build``: a shard's work, and the one finishing step.
- ``writer``: the data set in files; ``offers``: the same as predictions.
"""
