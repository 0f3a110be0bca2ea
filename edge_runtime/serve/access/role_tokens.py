"""Tokens for people's browsers: the box's, or one that is made of it for one role.

A screen at the line is given the one of its role, and cannot make the box's or another one of it.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256

from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.access.token import is_token


def role_token(token: str, role: Role) -> str:
    """The token for one role, made of the box's: no other can be made of it."""
    digest = hmac.new(token.encode(), f"page:{role}".encode(), sha256).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def role_of(said: str, token: str) -> Role | None:
    """The role that somebody's token gives on the pages: the box's own gives all of them. None for a wrong one."""
    if is_token(said, token):
        return Role.MAINTAIN
    found = [role for role in (Role.VIEW, Role.OPERATE, Role.MAINTAIN) if is_token(said, role_token(token, role))]
    return found[0] if found else None
