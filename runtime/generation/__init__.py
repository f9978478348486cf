"""From logits to text: options, sampling, beams, speculation, characters as they get whole."""
