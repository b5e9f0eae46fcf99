"""The ``taskgrant`` command: what it prints and how it exits. What is done, ``client`` and ``app`` do."""
