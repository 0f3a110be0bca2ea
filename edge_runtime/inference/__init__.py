"""From tensors to predictions: the engine, the decoders of its outputs, and the probe for files nobody vouches for."""
