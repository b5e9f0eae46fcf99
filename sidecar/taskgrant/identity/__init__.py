"""Who is calling: workloads, tokens and the identities that they prove."""
