"""From the head's input to losses: log-losses of completions, or what else a study asks of."""
