"""Studies of one set of pairs at one or several sites: checked, captured, ranked and saved."""
