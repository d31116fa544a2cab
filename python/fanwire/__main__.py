"""``python -m fanwire`` is ``fanwire``."""

from fanwire.cli import main

main()
