"""A top-down arena for 2 to 8 players: `python3 run.py play`. The network is in online.py, and nowhere else."""
