"""`python -m vinnow` is the `vinnow` command, for jobs that bring the package by runtime_env."""

from .pipelines.cli.main import main

if __name__ == "__main__":
    main()
