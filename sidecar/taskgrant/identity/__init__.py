"""Who is calling: SPIFFE IDs, certificates, tokens bound to them, and TLS contexts whose keys are never on
disk.
"""
