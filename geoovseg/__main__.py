"""`python -m geoovseg` is the command line."""

from geoovseg.cli import main

if __name__ == "__main__":
    main()
