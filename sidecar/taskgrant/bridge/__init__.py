"""The agent's end of a tool server on stdio: lines on standard input and output ↔ the sidecar's gateway.

It runs as the agent and enforces nothing: whatever it does, an agent could do by itself with the gateway.

``outgoing``  one line of the client: the request to the gateway that carries it                    (pure)
``incoming``  what the gateway answered: the messages for the client                                (pure)
``gateway``   the HTTP connections
``bridge``    the conversation: session, standing stream, what is on its way, the end
"""
