"""Logging in to Label Studio with a password, for a token that programs use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx

from demo.errors import LabelStudioError


@contextlib.contextmanager
def logged_in(base_url: str, username: str, password: str) -> Iterator[httpx.Client]:
    """Give an HTTP client with a session of the account, as a browser has after the login form.

    Raises:
        LabelStudioError: The account was refused.
    """
    with httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client:
        client.get("/user/login/").raise_for_status()
        form = {"email": username, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        answer = client.post("/user/login/", data=form, headers={"Referer": f"{base_url}/user/login/"})
        if not (answer.is_redirect and "sessionid" in client.cookies):
            raise LabelStudioError(f"Label Studio at {base_url} refused the login of {username}.")
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        client.headers["Referer"] = base_url
        yield client


def personal_access_token(base_url: str, username: str, password: str, *, replace: bool = False) -> str:
    """Create a personal access token, which the Label Studio SDK takes as ``api_key``.

    Label Studio keeps one valid token for an account and shows it only when it is made.

    Args:
        base_url: Address of the server.
        username: E-mail address of the account.
        password: Its password.
        replace: Revoke a token that exists already; whoever uses it is then refused.

    Raises:
        LabelStudioError: The account was refused, or it has a token and ``replace`` is False.
    """
    with logged_in(base_url, username, password) as client:
        answer = client.post("/api/token/")
        if answer.status_code == httpx.codes.CONFLICT and replace:
            for token in _checked(client.get("/api/token/")):
                client.post("/api/token/blacklist/", json={"refresh": token["token"]}).raise_for_status()
            answer = client.post("/api/token/")
        if answer.status_code == httpx.codes.CONFLICT:
            raise LabelStudioError(f"{username} has a personal access token: use it, or replace it.")
        return str(_checked(answer)["token"])


def _checked(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise LabelStudioError(f"Label Studio answered {answer.status_code} to {answer.request.url.path}.")
    return answer.json()
