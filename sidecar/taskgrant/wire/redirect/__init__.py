"""Redirection by the kernel: the rules, how they are applied and checked, and whom a redirected connection was for."""
