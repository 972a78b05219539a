"""Tests the status page in headless Chromium, with a simulator of Kore and a gateway in front of it.

Usage: check.py KOREGATE CHROMIUM DIRECTORY, where the directory takes the screenshots.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

TOKEN = "the-admin-token-of-the-test"
KEY = "the-key-of-the-test"
# A name that a page without escaping would run.
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"
SECTIONS = [
    "At a glance", "Health", "Savings", "Quota", "Last problems", "Callers", "Cached days", "Runs under way", "Purge",
    "Configuration in force",
]
SCHEMES = ["light", "dark"]
WIDTHS = [390, 1600]
CHECKS = 0


def check(is_right, what):
    """Ends the run unless `is_right`."""
    global CHECKS
    CHECKS += 1
    if not is_right:
        raise SystemExit(f"status page: {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Gateway:
    """A gateway with an admin token and two callers, and the simulator behind it."""

    def __init__(self, program, directory, name, has_token=True):
        self.kore, self.data, self.admin, self.metrics = (free_port() for _ in range(4))
        (directory / "secret").write_text("simulated-secret-of-no-worth-at-all=")
        (directory / "token").write_text(TOKEN)
        token = f"token = {{ file = '{directory / 'token'}' }}" if has_token else ""
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        config = directory / f"{name}.toml"
        config.write_text(f"""
[server]
listen = "127.0.0.1:{self.data}"
admin_listen = "127.0.0.1:{self.admin}"
metrics_listen = "127.0.0.1:{self.metrics}"
drain_timeout = "0s"
[admin]
{token}
[upstream]
base_url = "http://127.0.0.1:{self.kore}"
[[accounts]]
account_id = "664b33a620bd0892e0000001"
client_id = "cs-00000000-0000-5000-8000-000000000001"
client_secret = {{ file = '{directory / "secret"}' }}
quota = {{ limits = [{{ requests = 100, per = "1m" }}, {{ requests = 1800, per = "1h" }}] }}
[[callers]]
name = "bi-etl"
api_key_sha256 = "{digest}"
[[callers]]
name = "qa-dashboard"
api_key_sha256 = "{hashlib.sha256(b'other').hexdigest()}"
""")
        log = (directory / f"{name}.log").open("wb")
        simulate = [program, "simulate", "--listen", f"127.0.0.1:{self.kore}", "--stream", "st-1=600", "--stream",
                    "st-2=150", "--latency", "5ms", "--limit", "100/1m", "--limit", "1800/1h"]
        self.processes = [subprocess.Popen(simulate, stdout=log, stderr=log)]
        self.processes.append(subprocess.Popen([program, "serve", "--config", config], stdout=log, stderr=log))
        self.log = directory / f"{name}.log"
        self.url = f"http://127.0.0.1:{self.admin}/"

    def wait(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(self.url + "readyz", timeout=5).read()
            time.sleep(0.05)
        raise SystemExit(f"status page: the gateway does not start:\n{self.log.read_text()}")

    def ask(self, stream, first, last, key=KEY, **parameters):
        """Requests days of a stream; the status of the answer."""
        query = urllib.parse.urlencode({"from": first, "to": last, **parameters})
        path = f"/agentassist/api/v1/public/{urllib.parse.quote(stream, safe='')}/v2/agentassistinteractions?{query}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.data}{path}", headers={"x-api-key": key})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def api(self, path):
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Visit:
    """A page in a browser, which notes what it must not do."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.url, self.faults = url, []
        self.page.on("console", lambda message: self.note("console", message.text, message.type))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}") or dialog.dismiss())
        self.page.on("request", lambda request: self.note_request(request.url))

    def note(self, kind, text, level):
        # The browser reports the status 401 of the sign-in page.
        if level in ("error", "warning") and "401" not in text:
            self.faults.append(f"{kind}: {text}")

    def note_request(self, url):
        if not url.startswith((self.url, "data:")):
            self.faults.append(f"a request to {url}")

    def sign_in(self):
        self.page.goto(self.url)
        self.page.get_by_label("Admin token").fill(TOKEN)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="At a glance").wait_for()

    def close(self, what):
        check(not self.faults, f"{what}: {self.faults}")
        self.context.close()


def check_layout(page, what):
    """Nothing overflows to the side, and axe-core finds nothing."""
    sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(sizes[0] <= sizes[1], f"{what}: the page is {sizes[0]} px wide on a screen of {sizes[1]}")
    outside = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .hidden, .skip, svg'))
           .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
    )
    check(not outside, f"{what}: beyond the edge: {outside[:3]}")
    results = Axe().run(page)
    check(results.violations_count == 0, f"{what}: {results.generate_report()}")


def check_looks(browser, gateway, directory):
    """The page in four combinations, signed in."""
    for scheme in SCHEMES:
        visit = Visit(browser, gateway.url, viewport={"width": WIDTHS[0], "height": 900}, color_scheme=scheme)
        page = visit.page
        page.goto(gateway.url)
        check_layout(page, f"signing in, {scheme}")
        visit.sign_in()
        for width in WIDTHS:
            what = f"{scheme}-{width}"
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=directory / f"{what}.png", full_page=True)
            titles = page.get_by_role("heading", level=2).all_inner_texts()
            check(titles == SECTIONS, f"{what}: the sections are {titles}")
            page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
            check_layout(page, what)
            page.evaluate("document.querySelectorAll('details').forEach(details => details.open = false)")
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            is_dark = int(background.removeprefix("rgb(").split(",")[0]) < 100
            check(is_dark == (scheme == "dark"), f"{what}: the background is {background}")
        visit.close(scheme)


def check_answers(page, gateway):
    """What an operator asks is answered by the page."""
    text = page.inner_text("main")
    status = gateway.api("api/v1/status")
    calls = status["calls"]
    share = calls["saved"] * 100 // (calls["made"] + calls["saved"])
    check(calls["saved"] > 0 and f"{share} % of calls saved" in text, f"the share saved, {share} %, is missing")
    check("Healthy" in page.inner_text("#verdict"), "the verdict is missing")
    check("bi-etl" in page.inner_text("#callers"), "the caller is missing")
    check("st-1" in page.inner_text("#coverage") and "in memory" in page.inner_text("#coverage"), "no cached days")
    problems = page.inner_text("#problems")
    check(HOSTILE in problems, f"the stream of the problem is not shown as it is: {problems}")
    check("s3cr" not in text and TOKEN not in page.content(), "a secret is shown")
    streams = {stream["stream"]: stream for stream in gateway.api("api/v1/coverage?days=5")["streams"]}
    whole = [day for day in streams["st-1"]["days"] if day["memory"] == 86_400]
    check(len(whole) == 2, f"the cached days are {streams['st-1']['days']}")


def check_live(page, gateway):
    """A change shows without a reload, and the reader stays where they are."""
    page.evaluate("scrollTo(0, 900)")
    page.locator("#savings-summary").evaluate("summary => { summary.focus({ preventScroll: true }); summary.click(); }")
    page.evaluate("window.isSame = true")
    before = page.evaluate("scrollY")
    gateway.ask("st-2", *days_ago(9, 9))
    requests = gateway.api("api/v1/status")["calls"]["requests"]
    page.locator("#savings-live").get_by_text(f"for {requests} requests").wait_for(timeout=9000)
    check(page.evaluate("window.isSame"), "the page was loaded again")
    check(page.evaluate("scrollY") == before, "the scroll position was lost")
    check(page.evaluate("document.activeElement.id") == "savings-summary", "the focus was lost")
    check(page.locator("#savings-details").get_attribute("open") is not None, "what was open was closed")


def check_keyboard(page):
    """The tabulator key reaches everything that can be used, in the order of the page."""
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    selector = "a[href], button:not([hidden]), input:not([type=hidden]), select, summary, [tabindex='0']"
    wanted = page.evaluate(
        f"""() => [...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility())
            .map((e, place) => e.dataset.place = String(place))"""
    )
    reached = []
    for _ in range(len(wanted) * 5):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place ?? ''")
        if place and (not reached or reached[-1] != place):
            if place in reached:
                break
            reached.append(place)
        if len(reached) == len(wanted):
            break
    check(reached == wanted, f"by keyboard, {reached} are reached of {wanted}")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    check(outline != "none", "the focus is not visible")


def check_purge(page, gateway):
    """Cancelling purges nothing; confirming does."""
    cached = lambda: [day for stream in gateway.api("api/v1/coverage?days=6&stream=st-1")["streams"]
                      for day in stream["days"] if day["memory"]]
    day = days_ago(3, 3)[0]
    check(day in [day["date"] for day in cached()], "the day is not cached before the purge")
    page.get_by_label("Stream", exact=True).fill("st-1")
    page.get_by_label("From", exact=True).fill(day)
    page.get_by_label("To, that day included").fill(day)
    form = page.locator("#purge-form button")
    form.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Remove this from the cache?").wait_for()
    text = dialog.inner_text()
    check(all(part in text for part in ["st-1", day, "1 day", "all replicas"]), f"the dialog says: {text}")
    check_layout(page, "the dialog")
    dialog.get_by_role("link", name="Cancel").click()
    check(not dialog.is_visible(), "the dialog stays")
    check(day in [day["date"] for day in cached()], "the purge was done although it was cancelled")
    form.click()
    dialog.get_by_role("button", name="Purge now").click()
    dialog.get_by_text("It has left the cache").wait_for()
    coverage = gateway.api("api/v1/coverage?days=7&stream=st-1")["streams"]
    days = [day["date"] for stream in coverage for day in stream["days"] if day["memory"]]
    check(day not in days and days, f"after the purge, the days are {days}")
    dialog.get_by_role("link", name="Back to the status page").click()


def check_forgery(browser, gateway, cookies):
    """A page of another port, which is the same site to the browser, can change nothing."""
    visit = Visit(browser, gateway.url)
    visit.context.add_cookies(cookies)
    other = f"http://127.0.0.1:{gateway.metrics}/livez"
    visit.page.goto(other)
    for path in ["purge", "api/v1/purge"]:
        status = visit.page.evaluate(
            """async url => { try { return (await fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include',
               body: new URLSearchParams({ confirm: 'yes' }) })).type } catch (error) { return String(error) } }""",
            gateway.url + path,
        )
        check(status in ("opaque", "TypeError: Failed to fetch"), f"{path}: {status}")
    visit.context.close()
    days = gateway.api("api/v1/coverage?days=8&stream=st-1")["streams"]
    check(any(day["memory"] for stream in days for day in stream["days"]), "another page has purged")


def check_metrics_listener(gateway):
    """The listener for metrics serves them and health without the token, and nothing else."""
    for path, expected in [("metrics", 200), ("readyz", 200), ("livez", 200), ("", 404), ("api/v1/status", 404)]:
        try:
            status = urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics}/{path}", timeout=10).status
        except urllib.error.HTTPError as error:
            status = error.code
        check(status == expected, f"the listener for metrics answers /{path} with {status}")


def check_without_scripts(browser, gateway, directory):
    """Everything but the updates works without scripts."""
    visit = Visit(browser, gateway.url, java_script_enabled=False)
    visit.sign_in()
    page = visit.page
    check(page.get_by_role("heading", level=2).all_inner_texts() == SECTIONS, "sections are missing without scripts")
    check("This browser runs no scripts" in page.inner_text("main"), "there is no note about scripts")
    page.screenshot(path=directory / "no-scripts.png", full_page=True)
    page.get_by_label("Stream", exact=True).fill("st-2")
    page.locator("#purge-form button").click()
    page.get_by_role("heading", name="Remove this from the cache?").wait_for()
    page.screenshot(path=directory / "confirm.png")
    page.get_by_role("button", name="Purge now").click()
    page.get_by_role("heading", name="Purged").wait_for()
    page.get_by_role("link", name="Back to the status page").click()
    page.get_by_role("heading", name="At a glance").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto(gateway.url)
    page.get_by_role("heading", name="Sign in").wait_for()
    page.get_by_label("Admin token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("This is not the admin token.").wait_for()
    visit.close("without scripts")


def check_empty(browser, gateway, directory):
    """Without requests, the page says what to do first; without a token, it is there at once."""
    visit = Visit(browser, gateway.url, viewport={"width": 390, "height": 900})
    visit.page.goto(gateway.url)
    command = visit.page.inner_text("#first-command")
    check(f"http://127.0.0.1:{gateway.data}/" in command and "x-api-key" in command, f"the command is {command}")
    check_layout(visit.page, "the empty page")
    visit.page.screenshot(path=directory / "empty.png", full_page=True)
    check(visit.page.get_by_role("button", name="Sign out").count() == 0, "there is a button to sign out")
    command = command.replace("STREAM", "st-1").replace("\\\n", " ")
    result = subprocess.run(["sh", "-c", command], env={**os.environ, "KOREGATE_API_KEY": KEY}, capture_output=True)
    check(b"200 OK" in result.stdout, f"the command answers {result.stdout!r} {result.stderr!r}")
    visit.page.reload()
    check(visit.page.locator("#first-command").count() == 0, "what to do first is shown after it was done")
    visit.close("the empty page")


def days_ago(first, last):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return [str(today - datetime.timedelta(days=days)) for days in (first, last)]


def fill(gateway):
    """Traffic: two days cold, then hits, and problems with a hostile stream name and a wrong key."""
    for _ in range(3):
        check(gateway.ask("st-1", *days_ago(4, 3)) == 200, "the days of st-1 are not answered")
    check(gateway.ask("st-2", *days_ago(6, 2)) == 200, "the days of st-2 are not answered")
    check(gateway.ask("st-2", *days_ago(0, 0)) == 200, "today is not answered")
    check(gateway.ask(HOSTILE, *days_ago(3, 3)) >= 400, "the hostile stream is answered")
    check(gateway.ask("st-1", *days_ago(3, 3), key="wrong") == 401, "the wrong key is accepted")


def main():
    program, chromium, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    directory.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        gateway = Gateway(program, pathlib.Path(work), "gateway")
        stack.callback(gateway.stop)
        empty = Gateway(program, pathlib.Path(work), "empty", has_token=False)
        stack.callback(empty.stop)
        # The sandbox of Chromium cannot be made by root, nor in most containers.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.callback(browser.close)
        gateway.wait()
        fill(gateway)
        check_looks(browser, gateway, directory)
        visit = Visit(browser, gateway.url, viewport={"width": 1200, "height": 900})
        visit.sign_in()
        cookies = visit.context.cookies()
        check([cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies] == [True], f"{cookies}")
        check_answers(visit.page, gateway)
        check_keyboard(visit.page)
        check_live(visit.page, gateway)
        check_purge(visit.page, gateway)
        visit.close("the signed-in page")
        check_forgery(browser, gateway, cookies)
        check_metrics_listener(gateway)
        check_without_scripts(browser, gateway, directory)
        empty.wait()
        check_empty(browser, empty, directory)
    print(f"the status page: good, {CHECKS} checks in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
