"""The words of taskgrant as frozen values: pure, free of I/O, imported by everything and importing nothing of ours."""
