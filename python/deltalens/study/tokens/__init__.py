"""What a study says of single tokens: their effects, and those that dominate."""
