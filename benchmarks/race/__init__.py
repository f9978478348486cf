"""The race: the same weights through every engine that runs language models on a CPU; docs/race.md
says how.
"""
