"""The guard: stands in front of a tool server and lets in only live credentials of a task, bound to their
holder.

``config``       what it is told
``revocations``  what has ended, as the authority's events say                                  (pure)
``checks``       may this request pass?                                                         (pure)
``sessions``     which MCP session of the tool server belongs to which task                     (pure)
``flights``      the requests that are running, and how one is cut
``feed``         the authority's events: enrol, apply, cut, acknowledge, come back
``upstream``     the connections to the tool server
``stdio``        a tool server on stdio in place of an address: one ``child`` a task and session
``child``        one running command, its pipes, who waits for which answer (``exchanges``, pure)
``keeper``       the program between us and a command: ends it with all that it has started
``listener``     TLS connections with bounds, whose certificate is renewed while they stay up
``server``       one request: check, forward, stream the answer back
"""
