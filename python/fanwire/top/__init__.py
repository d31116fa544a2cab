"""``fanwire top``: what a running hub does, second by second, on a terminal or as lines; docs/top.md.

``differences.py`` has rates and quantiles, ``listings.py`` what is listed and how each row is shown, ``wishes.py`` what
a person asks to see, ``observer.py`` asks the admin side for it. None of them knows the screen: that is ``screen.py``
with ``panels.py`` and ``palette.py``. ``lines.py`` does without one.
"""
