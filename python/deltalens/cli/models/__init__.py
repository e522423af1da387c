"""From --model and what goes with it to models in memory."""
