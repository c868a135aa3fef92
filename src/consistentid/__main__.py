"""`python -m consistentid`, for launchers such as accelerate's."""

from consistentid.cli.app import main

if __name__ == "__main__":
    main()
