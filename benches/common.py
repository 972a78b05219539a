"""What the commands in this folder share: packages, builds, children, processor time, and a warm koregate."""

import ctypes
import datetime
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STREAM = "st-bench"
PATH = f"/agentassist/api/v1/public/{STREAM}/v2/agentassistinteractions"
TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    """Progress goes to standard error, so that standard output holds the tables alone."""
    print(f"# {text}", file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"{Path(sys.argv[0]).name}: {text}")


# Packages and builds


def need(programs):
    """Installs the Debian package of each program that is missing: {program: package}."""
    # Debian keeps servers where only root's PATH leads.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        fail(f"install what Debian calls {', '.join(missing)}")
    root = [] if os.geteuid() == 0 else ["sudo"]
    if root and not shutil.which("sudo"):
        fail(f"there is no sudo; as root: apt-get install {' '.join(missing)}")
    say(f"install {' '.join(missing)}")
    # Debian starts the servers that it installs. Ours listen elsewhere, and theirs would take processor time.
    servers = [package for package in missing if package in ("nginx", "haproxy", "varnish")]
    subprocess.run([*root, "apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    subprocess.run([*root, "env", "DEBIAN_FRONTEND=noninteractive", *install], check=True, stdout=sys.stderr)
    if Path("/run/systemd/system").is_dir() and servers:
        subprocess.run([*root, "systemctl", "disable", "--now", *servers], check=False, stdout=sys.stderr)


def build_koregate():
    """The gateway as it is shipped."""
    say("build koregate (the first time, some minutes)")
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True, stdout=sys.stderr)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "koregate"


def build_tool():
    """The helper of these commands."""
    say("build the helper (the first time, some minutes)")
    # It keeps the names of its functions, which callgrind looks for. Nothing else is built anew for that.
    command = ["cargo", "rustc", "--release", "--locked", "--bench", "tool"]
    command += ["--message-format=json-render-diagnostics", "--", "-Cstrip=none"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "tool":
            return Path(message["executable"])
    return fail("cargo did not say what it built")


# Children


class Children:
    """Starts processes and ends them again, however this process ends."""

    def __init__(self):
        self.started = []
        self.directory = Path(tempfile.mkdtemp(prefix="koregate-bench-"))
        # Servers that begin as root go on as somebody else, and must find their files all the same.
        self.directory.chmod(0o755)

    def __enter__(self):
        # SIGTERM unwinds as Ctrl-C does, so that what is below is run.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        for child in reversed(self.started):
            self.stop(child)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, command, core=None, log="others", **options):
        """A process on one core, or on any; what it says goes into a file, or nowhere if `log` is None."""
        pin = [] if core is None else ["taskset", "-c", str(core)]
        log = log and self.directory / f"{log}.log"
        sink = subprocess.DEVNULL if log is None else open(log, "ab")
        child = subprocess.Popen(
            [*pin, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=options.pop("stdout", sink),
            stderr=sink,
            # If this process is killed, the kernel tells its children.
            preexec_fn=die_with_parent,
            **options,
        )
        child.log = log
        self.started.append(child)
        return child

    def stop(self, child):
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                for process in reversed(family(child.pid)):
                    kill(process)
                child.wait(5)
        if child in self.started:
            self.started.remove(child)


def die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def await_port(port, child, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    ended = child.poll()
    fail(f"{what} did not start: {'it takes too long' if ended is None else f'it ended with {ended}'}{said(child)}")


def said(child):
    """The end of what a child wrote to its log."""
    log = getattr(child, "log", None)
    return "\n" + log.read_text(errors="replace")[-2000:] if log else ""


# What processes use


def family(process):
    """A process and all below it."""
    found = [process]
    for member in found:
        try:
            threads = list(Path(f"/proc/{member}/task").iterdir())
            found += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def cpu_seconds(process):
    """Processor time of a process and all below it, all their threads included, those that have ended too."""
    total = 0
    for member in family(process):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss(process):
    """Resident bytes."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[1]) * 1024


def two_cores():
    """The core for the server, and the one for who asks it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        say("there is one core only: server and load share it, and requests a second mean little")
    return cores[-1], cores[0]


# Asking


def get(port, path, headers=None, timeout=120):
    """Status, headers and the body as it came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "identity", **(headers or {})})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def fetch(port, path, headers=None, timeout=120):
    """The body of an answer that must be a 200, and its headers."""
    status, heads, body = get(port, path, headers, timeout)
    if status != 200:
        fail(f"{path}: {status} {body[:500]!r}")
    return body, heads


def metric(port, name):
    """The sum of all values of a metric."""
    text = fetch(port, "/metrics")[0].decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


# A koregate, and the simulator that it is filled from


class Upstream:
    """`koregate simulate` without limits and without delay. Its data is the same each time, up to the date."""

    def __init__(self, children, koregate, days, items_a_day):
        self.port = free_port()
        flags = f"--days {days} --stream {STREAM}={items_a_day} --exact --no-limits --latency 0ms --jitter 0ms".split()
        listen = ["--listen", f"127.0.0.1:{self.port}"]
        self.child = children.start([koregate, "simulate", *listen, *flags], log="simulator")
        await_port(self.port, self.child, "the simulator")
        # It listens before it prints, because it counts its items for that.
        end = time.monotonic() + 60
        while "steer:" not in (greeting := said(self.child)):
            if time.monotonic() > end:
                fail(f"the simulator does not print its credential: {greeting}")
            time.sleep(0.02)
        known = re.findall(r"^(account id|client id|client secret) +(\S+)$", greeting, re.M)
        self.credential = {name.replace(" ", "_"): value for name, value in known}


class Koregate:
    """A gateway in front of an [`Upstream`]. Its own log goes nowhere, as that of a server in production goes away."""

    def __init__(self, children, binary, upstream, core=None, log="warn", extra=""):
        self.children, self.port, self.admin = children, free_port(), free_port()
        config = children.directory / f"koregate-{self.port}.toml"
        credential = upstream.credential
        config.write_text(
            f"""
[server]
listen = "127.0.0.1:{self.port}"
admin_listen = "127.0.0.1:{self.admin}"
[upstream]
base_url = "http://127.0.0.1:{upstream.port}"
[[accounts]]
account_id = "{credential["account_id"]}"
client_id = "{credential["client_id"]}"
client_secret = {{ env = "BENCH_SECRET" }}
quota = {{ limits = [{{ requests = 1_000_000, per = "1m" }}] }}
{extra}
"""
        )
        environment = {**os.environ, "BENCH_SECRET": credential["client_secret"]}
        command = [binary, "--log", log, "serve", "--config", config]
        self.started = time.monotonic()
        self.child = children.start(command, core, log="koregate" if log == "warn" else None, env=environment)
        self.pid = self.child.pid

    def ready(self):
        await_port(self.port, self.child, "koregate")
        return self

    def stop(self):
        self.children.stop(self.child)


def day(ago):
    """A UTC day before today, as in a query."""
    return (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=ago)).isoformat()


def window(first, last, rest=""):
    """The path of a window of days, both so many days ago."""
    return f"{PATH}?from={day(first)}&to={day(last)}{rest}"


# Tables


def table(head, rows):
    """A Markdown table, its columns aligned so that it reads well as it is. The first column is text."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]

    def line(row):
        padded = [cell.ljust(width) if n == 0 else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if n == 0 else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def machine(given=None):
    """What the numbers were measured on, and of what: this commit, or a binary that was given."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    cores, linux = len(os.sched_getaffinity(0)), os.uname().release.split("-")[0]
    what = f"the binary {given.name}" if given else f"koregate at {commit.stdout.strip() or 'an unknown commit'}"
    return f"{cores} cores, {model[1] if model else os.uname().machine}, Linux {linux}; {what}"
