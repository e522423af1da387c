"""What studies and surveys are asked for on the command line, and how surveys are shown there."""
