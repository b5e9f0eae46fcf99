"""What the sidecar costs: ``python -m bench`` measures calls direct and through it, and prints how they compare."""
