"""The guard in front of a service: admits only requests that carry a grant."""
