"""What hides latency, each with a switch: `python -m examples.netcode.prediction [--without]`, and so on."""
