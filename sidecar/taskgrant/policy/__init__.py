"""What is allowed: questions to Open Policy Agent and its answers."""
