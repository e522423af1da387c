"""How figures look, wherever they are drawn and shown."""
