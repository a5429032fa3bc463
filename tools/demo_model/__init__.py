"""The demo model: its training text, tokenizer, network, training, evaluation and export."""
