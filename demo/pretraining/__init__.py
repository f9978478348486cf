"""How the embedded base model comes into being: made-up text, tokenizer, packed corpus, training
loop.
"""
