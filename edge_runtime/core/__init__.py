"""What every room shares: the types that flow, errors, clock, log. Imports nothing of the product."""
