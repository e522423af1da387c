"""Text to token ids and back: chats, completions, reasoning, single tokens."""
