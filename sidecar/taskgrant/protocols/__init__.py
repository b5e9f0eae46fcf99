"""What a request means: the readers of the protocols that agents speak."""
