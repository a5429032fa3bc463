"""What a person sees and does on the web page."""

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import Serve

SOME_TEXT = re.compile(r".{3,}", re.DOTALL)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)> **bold**"


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def last_reply(page: Page) -> str:
    return page.locator(".turn.assistant p").last.inner_text()


def wait_until_done(page: Page) -> None:
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_the_page_shows_the_model_and_how_to_connect(page: Page, serve: Serve) -> None:
    server = serve()
    page.goto(server.ui_url)
    expect(page.get_by_role("status")).to_have_text("tiny is ready")
    expect(page.locator("#api-url")).to_have_text(server.api_url)
    expect(page.locator("#facts")).to_contain_text("4096 tokens")
    expect(page.locator("#context")).to_have_text("4096")


def test_a_reply_appears_and_says_what_it_cost(page: Page, serve: Serve) -> None:
    page.goto(serve(reply="Welcome to the inn.").ui_url)
    say(page, "Hello")
    expect(page.locator(".turn.assistant p")).to_have_text("Welcome to the inn.")
    expect(page.locator(".turn.assistant small")).to_contain_text("tokens/s")
    expect(page.locator(".turn.user p")).to_have_text("Hello")


def test_a_reply_streams(page: Page, serve: Serve) -> None:
    page.goto(serve(tokens_per_second=20).ui_url)
    say(page, "Hello")
    expect(page.locator(".turn.assistant p")).to_have_text(SOME_TEXT)
    first = last_reply(page)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator(".turn.assistant p")).not_to_have_text(first)
    assert last_reply(page).startswith(first)
    page.keyboard.press("Escape")
    wait_until_done(page)


def test_stop_keeps_what_was_written_and_frees_the_engine(page: Page, serve: Serve) -> None:
    page.goto(serve("--parallel", "1", tokens_per_second=20).ui_url)
    say(page, "Hello")
    expect(page.locator(".turn.assistant p")).to_have_text(SOME_TEXT)
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)
    expect(page.locator(".turn.assistant small")).to_have_text("stopped")
    stopped = last_reply(page)
    assert len(stopped) > 2
    say(page, "Go on")
    expect(page.locator(".turn.assistant p").nth(1)).to_have_text(SOME_TEXT)
    assert page.locator(".turn.assistant p").first.inner_text() == stopped
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)


def test_regenerate_replaces_the_last_reply(page: Page, serve: Serve) -> None:
    page.goto(serve(reply="Again.").ui_url)
    say(page, "Hello")
    expect(page.locator(".turn.assistant small")).to_contain_text("tokens")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".turn.assistant small")).to_contain_text("tokens")
    wait_until_done(page)
    expect(page.locator(".turn.assistant p")).to_have_count(1)
    expect(page.locator(".turn.user p")).to_have_count(1)


def test_new_chat_forgets_the_old_one(page: Page, serve: Serve) -> None:
    page.goto(serve(reply="Yes.").ui_url)
    say(page, "Hello")
    expect(page.locator(".turn.assistant small")).to_contain_text("tokens")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_markup_in_a_reply_or_a_message_stays_text(page: Page, serve: Serve) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(serve(reply=HOSTILE).ui_url)
    say(page, HOSTILE)
    expect(page.locator(".turn.assistant p")).to_have_text(HOSTILE)
    expect(page.locator(".turn.user p")).to_have_text(HOSTILE)
    assert page.locator("#log img, #log script, #log b").count() == 0
    assert page.title() == "Innkeeper" and not dialogs


def test_a_refused_reply_says_why_and_the_chat_goes_on(page: Page, serve: Serve) -> None:
    page.goto(serve("--ctx", "128", reply="ok").ui_url)
    say(page, "long " * 200)
    expect(page.get_by_role("alert")).to_contain_text("context")
    say(page, "short")
    expect(page.locator(".turn.assistant p")).to_have_text("ok")


def test_a_key_is_asked_for_once(page: Page, serve: Serve) -> None:
    server = serve(environment={"INNKEEPER_API_KEY": "s3cret"})
    unauthorized = page.context.new_page()  # its console shows the 401, as it should
    unauthorized.goto(server.ui_url)
    unauthorized.get_by_label("This server asks for its key.").fill("s3cret")
    unauthorized.get_by_role("button", name="Continue").click()
    expect(unauthorized.get_by_role("status")).to_have_text("tiny is ready")
    unauthorized.close()


def test_the_page_fits_a_phone(page: Page, serve: Serve) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(serve(reply="word " * 100).ui_url)
    expect(page.get_by_role("status")).to_have_text("tiny is ready")
    say(page, "x" * 300)
    expect(page.locator(".turn.assistant small")).to_contain_text("tokens")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_keyboard_reaches_everything(page: Page, serve: Serve) -> None:
    page.goto(serve(reply="Yes.").ui_url)
    expect(page.get_by_role("status")).to_have_text("tiny is ready")
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"log", "message", "send", "SUMMARY", "BUTTON", "docs"} <= reached
