"""The control API: ports.Authority as HTTP and JSON on a Unix socket, one role table for every peer.

``server.ControlServer`` serves it, ``routes.ROUTES`` lists it, ``openapi.describe`` describes it,
``config.ControlConfig`` is its section of the configuration.
"""
