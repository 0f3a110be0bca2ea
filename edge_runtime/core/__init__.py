"""What every room shares: the types that flow, errors, clock, log, config. Imports nothing of the product."""
