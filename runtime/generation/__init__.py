"""From logits to text: options, sampling, beams, speculation, and characters as they become
whole.
"""
