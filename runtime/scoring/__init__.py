"""Numbers instead of text: log-probabilities of options and texts, keys and values of a text."""
