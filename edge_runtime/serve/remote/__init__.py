"""An inference server in the house, asked for the line."""
