"""The admin side of a hub: who is connected, what lags and why, and what to do about it, over HTTP: docs/admin.md."""

from fanwire.admin.config import AdminConfig

__all__ = ["AdminConfig"]
