"""What a survey is given on the command line, and how it is shown there."""
