"""Tasks: the prefixes that an engine knows, folders of them, and what they are made of."""
