"""`python -m hashret`, as torchrun needs it."""

from .cli import main

main(prog_name="hashret")
