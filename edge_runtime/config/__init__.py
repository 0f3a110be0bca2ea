"""The station file: what may stand in it, how it is read, and where things lie."""
