"""The client of the control API that the command line uses."""
