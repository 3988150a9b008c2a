"""What people did with the suggestions, and what assistance is worth; no Flask, no torch.

- ``overlap``: how alike two regions are.
- ``outcomes``: what became of each suggestion of a task.
- ``store``: annotations with the outcomes on record (their tables in ``schema``), kept up to date by ``follow``.
- ``figures``: shares and overlaps by class, version, annotator, week and assist.
- ``intervals``, ``speed``: seconds per object, assisted against manual.
- ``comparison``: tasks that are drawn to be labelled without assistance.
- ``disagreements``: where a head says otherwise than a person; ``doubts``: the queues of such labels.
"""
