"""The embedded base, three seeded tasks, and the whole pipeline on one page
(`edgeprefix demo`).

Nothing is imported here, so that the measuring process can start from this package without torch.
"""

__all__: list[str] = []
