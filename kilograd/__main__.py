"""``python -m kilograd`` is the ``kilograd`` command."""

from kilograd.cli import main

main()
