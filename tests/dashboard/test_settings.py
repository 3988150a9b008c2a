"""The settings page leaves nothing out and shows no secret."""

from __future__ import annotations

from pathlib import Path

from flask import g
from pydantic import SecretStr

from tator_ml.web.access import Visitor
from tator_sdk.settings import Settings

from .conftest import Site, build_site, close_site


def test_every_setting_is_on_the_page(site: Site) -> None:
    page = site.page("/tator/settings")
    for name in Settings.model_fields:
        assert f'id="{name}"' in page, f"{name} is missing"
    assert "Also: SAM_VARIANT" in page and "not set" in page
    assert site.page("/tator/settings/env-example").count("TATOR_") > 50


def test_secrets_and_text_of_users(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(
        home=tmp_path,
        redis_url=redis_url,
        label_studio_api_key=SecretStr("hush"),
        username="<b>me</b>",
        engine_key=SecretStr("hush"),
    )
    site = build_site(settings)
    page = site.page("/tator/settings")
    assert "hush" not in page and "<b>me</b>" not in page and "&lt;b&gt;me" in page
    close_site(site)


def test_it_is_the_administrators(site: Site) -> None:
    @site.client.application.before_request
    def _somebody() -> None:
        g.visitor = Visitor("anna@example.com", frozenset({1}))

    site.page("/tator/settings", 403)
    site.page("/tator/settings/env-example", 403)
    assert "/tator/settings" not in site.page("/tator/now")
