"""The command line: one `edgeprefix`, whose root stands here and finds every package's commands
through entry points.
"""
