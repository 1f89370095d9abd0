"""`python -m psyne_mesh`: the command line."""

from psyne_mesh.cli import main

if __name__ == "__main__":
    main()
