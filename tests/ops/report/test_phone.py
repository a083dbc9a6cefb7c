"""The pages on a phone, in a real browser: only what is made to scroll sideways does, in light and in dark."""

import pytest

from ops.report.__main__ import ReportParams, build
from tests.assets.browser import CHROMIUM, Browser, wait_until

WIDTH = 390
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, .turn, .lineage')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
CAPTIONS = "[...document.querySelectorAll('caption span')].map(e => e.getBoundingClientRect().right)"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")
def test_no_page_is_wider_than_a_phone(whole, tmp_path):
    pages = build(whole, ReportParams())
    with Browser(tmp_path / "chromium") as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=844, deviceScaleFactor=1, mobile=True)
        grounds = set()
        for number, (name, text) in enumerate(pages.items()):
            (tmp_path / name).write_text(text, encoding="utf-8")
            theme = {"name": "prefers-color-scheme", "value": ("light", "dark")[number % 2]}
            browser.call("Emulation.setEmulatedMedia", media="", features=[theme])
            browser.open((tmp_path / name).as_uri())
            loaded = f"document.readyState == 'complete' && location.pathname.endsWith('{name}')"
            wait_until(lambda loaded=loaded: browser.run(loaded), 20, name)
            assert browser.run("document.documentElement.scrollWidth") == WIDTH, name
            assert browser.run(TOO_WIDE) == [], name
            assert max(browser.run(CAPTIONS), default=0) <= WIDTH, name
            grounds.add(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2
