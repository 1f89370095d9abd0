from psyne_mesh.cli import main

if __name__ == "__main__":
    main()
