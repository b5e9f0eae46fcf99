"""What happened: the append-only, verifiable record of every decision."""
