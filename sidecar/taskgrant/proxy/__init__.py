"""The forward proxy: decides on each request and passes on what is allowed."""
