"""The stacks that are compared: each is one program that obeys the commands of `protocol.py`."""
