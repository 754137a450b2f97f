"""The applications a platform offers: a TOML file maps `tomcat8;jdk=8` to images, a command, a port and defaults.

    [app.tomcat8]
    about = "Apache Tomcat 8.5"
    options = { jdk = ["8", "11"] }             # what may be said after `;`; the first value is the default
    image = "tomcat8;jdk-{jdk};debian"          # a stack: application on runtime on base
    command = ["/opt/tomcat/bin/catalina.sh", "run"]
    port = 8080
    env = { JAVA_HOME = "/opt/jdk-{jdk}" }
    memory = "256M"
    cpu = "500m"
    idle = "5m"
    ready_timeout = "30s"

`{option}` stands for an option's value in image, command, env and port; an option that may be any number says so with
`["8080", "*"]`. Owns the file's form and the little language; nothing here knows requests.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from node.errors import InvalidConfig, InvalidValue, NotFound, shorten
from node.quantities import parse_cpu, parse_duration, parse_size

APPLICATIONS_MAX = 1000
APPLICATION_LENGTH_MAX = 256
ANY_NUMBER = "*"
PORT_MAX = 65_535

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}", re.ASCII)
_PATH = re.compile(r"/[!-~]{0,200}", re.ASCII)
_FIELD = re.compile(r"\{([a-z0-9_-]+)\}")

Texts = Annotated[dict[str, str], msgspec.Meta(max_length=100)]


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One application as the file has it."""

    image: str
    port: int | str
    command: Annotated[list[str], msgspec.Meta(max_length=100)] = []
    about: str = ""
    options: dict[str, list[str]] = {}
    env: Texts = {}
    memory: str = "128M"
    cpu: str = "250m"
    cpu_limit: str = ""
    idle: str = "5m"
    frozen: str = "15m"
    ready_timeout: str = "30s"
    ready_path: str = ""
    health_path: str = ""
    health_interval: str = "10s"
    min_instances: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    home: str = "/home/{user}"
    pids: Annotated[int, msgspec.Meta(ge=8, le=1 << 22)] = 256


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    app: dict[str, App] = {}


class Chosen(NamedTuple):
    """An application with its options filled in."""

    name: str
    app: App
    options: Mapping[str, str]

    def fill(self, text: str, **more: str) -> str:
        """Put the options' values into a text."""
        return _FIELD.sub(lambda match: {**self.options, **more}.get(match[1], match[0]), text)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.fill(str(self.app.port)))


DEMO = App(
    image="busybox",
    port="{port}",
    command=["/bin/sh", "-c", "mkdir -p /tmp/www && cat >/tmp/www/index.html <<EOF && "
             "exec busybox httpd -f -p {port} -h /tmp/www\n"
             "hello from $(hostname)\nhost $FOFOCA_SITE_HOST\nsite $FOFOCA_SITE\n"
             "instance ${FOFOCA_SITE##*:}\nnode $FOFOCA_NODE\n"
             "job $FOFOCA_JOB_ID, attempt $FOFOCA_ATTEMPT\nEOF\n"],
    about="A tiny web server on busybox, to try the door with",
    options={"port": ["8080", ANY_NUMBER]},
    memory="16M",
    cpu="50m",
    pids=16,
)  # fmt: skip


class Catalogue:
    """All applications by name. The built-in `demo` is there unless the file has one of that name."""

    def __init__(self, apps: Mapping[str, App] | None = None) -> None:
        self._apps = {"demo": DEMO, **(apps or {})}

    def names(self) -> list[str]:
        """Return the applications, by name."""
        return sorted(self._apps)

    def get(self, name: str) -> App:
        """Return an application as its file has it; NotFound."""
        app = self._apps.get(name)
        if app is None:
            raise NotFound(
                f"no application {shorten(name)}; the catalogue of this node has: {', '.join(self.names())}. Operators "
                "describe applications in the file that door.catalogue names (docs/door.md, `fofoca app check FILE`); "
                "to try the door, ask for demo;port=8080"
            )
        return app

    def choose(self, text: str, field: str = "application") -> Chosen:
        """Read `NAME;OPTION=VALUE;...`; NotFound, InvalidValue."""
        if len(text) > APPLICATION_LENGTH_MAX:
            raise InvalidValue(field, text, f"expected at most {APPLICATION_LENGTH_MAX} characters")
        name, *pairs = (part.strip() for part in text.split(";"))
        app = self.get(name)
        options = {option: values[0] for option, values in app.options.items()}
        for pair in filter(None, pairs):
            option, equals, value = pair.partition("=")
            if not equals or option not in app.options:
                known = ", ".join(app.options) or "none"
                raise InvalidValue(field, pair, f"expected OPTION=VALUE; {name} has the options: {known}")
            if not _allowed(value, app.options[option]):
                raise InvalidValue(field, pair, f"expected {option} to be {_choice(app.options[option])}")
            options[option] = value
        chosen = Chosen(name, app, options)
        if not 1 <= chosen.port <= PORT_MAX:
            raise InvalidValue(field, text, f"expected a port from 1 to {PORT_MAX}")
        return chosen


def _choice(values: list[str]) -> str:
    return " or ".join("any whole number" if value == ANY_NUMBER else value for value in values)


def _allowed(value: str, values: list[str]) -> bool:
    return (value in values and value != ANY_NUMBER) or (
        ANY_NUMBER in values and value.isascii() and value.isdigit() and len(value) <= 10
    )


def read_catalogue(path: str | Path | None) -> Catalogue:
    """Read and check a catalogue (None: the built-in applications alone); InvalidConfig names what is wrong."""
    if path is None:
        return Catalogue()
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        apps = msgspec.convert(content, _File).app
    except OSError as error:
        raise InvalidConfig("door.catalogue", str(path), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidConfig("door.catalogue", str(path), str(error)) from None
    if len(apps) > APPLICATIONS_MAX:
        raise InvalidConfig("door.catalogue", str(path), f"has {len(apps)} applications; at most {APPLICATIONS_MAX}")
    for name, app in apps.items():
        for field, value, expected in problems(name, app):
            raise InvalidConfig(f"door.catalogue: app.{name}.{field}", value, expected)
    return Catalogue(apps)


def problems(name: str, app: App) -> list[tuple[str, Any, str]]:
    """Return what is wrong with an application: (field, value, what would be right)."""
    found: list[tuple[str, Any, str]] = []
    if _NAME.fullmatch(name) is None:
        found.append(("name", name, "use small letters, digits, '.', '_' and '-'"))
    for option, values in app.options.items():
        if _NAME.fullmatch(option) is None or not values or values[0] == ANY_NUMBER:
            found.append((f"options.{option}", values, "a name, and its values, the default first"))
        found += [(f"options.{option}", value, "letters, digits and . _ + -") for value in values
                  if value != ANY_NUMBER and _VALUE.fullmatch(value) is None]  # fmt: skip
    for field, text in (("image", app.image), *(("command", word) for word in app.command),
                        *((f"env.{key}", value) for key, value in app.env.items())):  # fmt: skip
        found += [(field, text, f"{{{each}}} is no option") for each in _FIELD.findall(text) if each not in app.options]
    for field, parse in (("memory", parse_size), ("cpu", parse_cpu), ("idle", parse_duration),
                         ("frozen", parse_duration), ("ready_timeout", parse_duration),
                         ("health_interval", parse_duration)):  # fmt: skip
        try:
            parse(getattr(app, field), field)
        except InvalidValue as error:
            found.append((field, error.value, error.expected))
    found += [(field, path, "a path such as /health, without blanks")
              for field, path in (("ready_path", app.ready_path), ("health_path", app.health_path))
              if path and _PATH.fullmatch(path) is None]  # fmt: skip
    port = _FIELD.sub(lambda match: app.options.get(match[1], ["?"])[0], str(app.port))
    if not port.isdigit() or not 1 <= int(port) <= PORT_MAX:
        found.append(("port", app.port, "a port from 1 to 65535, or {option}"))
    return found
