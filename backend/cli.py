"""Entry of `fanfare`. Imports nothing yet, so that even the earliest Ctrl-C is no traceback."""

INTERRUPTED = 130


def main() -> None:
    """Runs the command; the exit code is the process's."""
    try:
        from backend.commands import run

        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
