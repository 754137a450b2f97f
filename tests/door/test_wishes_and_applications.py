"""Headers and JSON say the same thing; the catalogue says what runs; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.door.building import build
from node.door.catalogue import Catalogue, read_catalogue
from node.door.wish import Wish, check, from_headers, has_wish, host_of
from node.errors import InvalidConfig, InvalidValue, NotFound
from scheduler.spec.files import Volume
from scheduler.spec.placement import Placement
from scheduler.validate import validate

SLIDE = {
    "host": "shimoo.com.br",
    "x-user": "shimoo",
    "x-user-domains": "shimoo.com.br, WWW.shimoo.com.br",
    "x-homedir": "ha-pool02/ha-pool02-fs02/shimoo/home",
    "x-application": "tomcat8;jdk=8",
    "x-instance": "1",
    "x-memory-limit": "256",
    "x-cpu-limit": "25",
    "x-idle-timeout": "5",
    "x-backend": "b:u:shimoo:1",
    "x-realhost": "shimoo.com.br",
}
CATALOGUE = """
[app.tomcat8]
options = { jdk = ["11", "8"] }
image = "tomcat8;jdk-{jdk};debian"
command = ["/opt/tomcat/bin/catalina.sh", "run"]
port = 8080
env = { JAVA_HOME = "/opt/jdk-{jdk}" }
"""


def catalogue(folder: Path, text: str = CATALOGUE) -> Catalogue:
    path = folder / "applications.toml"
    path.write_text(text)
    return read_catalogue(path)


def test_the_slides_request_is_a_site(tmp_path: Path) -> None:
    assert has_wish(SLIDE)
    site = build(from_headers(SLIDE), catalogue(tmp_path))
    spec = site.spec
    assert (site.key, site.owner, site.port, site.idle_s) == ("b:u:shimoo:1", "shimoo", 8080, 300)
    assert site.hosts == ("shimoo.com.br", "www.shimoo.com.br")
    assert spec.image == "tomcat8;jdk-8;debian"
    assert dict(spec.env)["JAVA_HOME"] == "/opt/jdk-8"
    assert (spec.limit.cpu_milli, spec.request.cpu_milli, spec.limit.memory_bytes) == (250, 250, 256 << 20)
    home = Volume(name="homes", target="/home/shimoo", folder="ha-pool02/ha-pool02-fs02/shimoo/home")
    assert spec.files.volumes == (home,)
    validate(spec)


def test_the_slides_spelling_of_the_time_out_counts_too() -> None:
    headers = {name: value for name, value in SLIDE.items() if name != "x-idle-timeout"}
    assert from_headers({**headers, "x-idle-timout": "7"}).idle_minutes == 7
    assert from_headers({**SLIDE, "x-idle-timout": "5"}).idle_minutes == 5
    with pytest.raises(InvalidValue, match="the other spelling"):
        from_headers({**SLIDE, "x-idle-timout": "7"})


def test_a_containers_host_name_is_its_backends(tmp_path: Path) -> None:
    def named(user: str, number: int) -> str:
        wish = Wish(backend=f"b:u:{user}:{number}", user=user, application="demo")
        check(wish)
        spec = build(wish, catalogue(tmp_path)).spec
        validate(spec)
        return spec.networking.hostname

    assert named("shimoo", 1) == "b-u-shimoo-1"
    assert named("_a.b-", 9999) == "b-u--a-b--9999"
    assert len(named("x" * 32, 9999)) <= 63


def test_the_first_instances_are_always_on_as_many_as_are_wished_or_the_application_says(tmp_path: Path) -> None:
    apps = catalogue(tmp_path, CATALOGUE + "min_instances = 1\n")

    def always_on(number: int, **more: str) -> bool:
        headers = {**SLIDE, "x-backend": f"b:u:shimoo:{number}", "x-instance": str(number), **more}
        return build(from_headers(headers), apps).always_on

    assert [always_on(number) for number in (1, 2)] == [True, False]
    assert [always_on(number, **{"x-min-instances": "2"}) for number in (1, 2, 3)] == [True, True, False]
    assert not always_on(1, **{"x-min-instances": "0"})


def test_instances_keep_apart_and_one_alone_costs_no_word_about_it(tmp_path: Path) -> None:
    def placement(number: int, **more: str) -> Placement:
        headers = {**SLIDE, "x-backend": f"b:u:shimoo:{number}", "x-instance": str(number), **more}
        spec = build(from_headers(headers), catalogue(tmp_path)).spec
        validate(spec)
        return spec.placement

    apart = Placement(labels=("site=shimoo",), prefer_apart=("label:site=shimoo",))
    assert placement(1) == Placement()
    assert placement(2) == apart
    assert placement(1, **{"x-min-instances": "2"}) == apart


def test_the_home_of_a_site_is_the_applications_home(tmp_path: Path) -> None:
    site = build(from_headers(SLIDE), catalogue(tmp_path))
    assert dict(site.spec.env)["HOME"] == site.spec.files.volumes[0].target == "/home/shimoo"


def test_an_application_with_a_health_path_is_restarted_when_it_is_not_well(tmp_path: Path) -> None:
    text = CATALOGUE + 'health_path = "/ok"\nhealth_interval = "20s"\nready_timeout = "45s"\n'
    site = build(from_headers(SLIDE), catalogue(tmp_path, text))
    validate(site.spec)
    health = site.spec.life.health
    assert health is not None
    assert health.http is not None
    assert (health.http.port, health.http.path, health.interval_s, health.start_period_s) == (8080, "/ok", 20, 45)


def test_the_example_catalogue_is_good() -> None:
    apps = read_catalogue(Path(__file__).parents[2] / "docs/examples/door/applications.toml")
    for name in apps.names():
        validate(build(Wish(backend="b:u:ana:1", user="ana", application=name, home="p/ana"), apps).spec)


def test_what_is_left_out_is_the_catalogues(tmp_path: Path) -> None:
    few = {name: SLIDE[name] for name in ("x-user", "x-backend", "x-application")}
    site = build(from_headers(few), catalogue(tmp_path), host="shimoo.com.br")
    assert (site.idle_s, site.spec.limit.memory_bytes, site.spec.limit.cpu_milli) == (300, 128 << 20, 0)
    assert site.hosts == ("shimoo.com.br",)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-backend", "b:u:other:1"),
        ("x-backend", "shimoo"),
        ("x-user", "Shi Moo"),
        ("x-user", "../root"),
        ("x-user-domains", "shimoo.com.br,bad_host!"),
        ("x-homedir", "../../etc"),
        ("x-homedir", "/etc"),
        ("x-homedir", "a//b"),
        ("x-instance", "0"),
        ("x-instance", "one"),
        ("x-instance", "2"),
        ("x-weight", "0"),
        ("x-weight", "1.5"),
        ("x-min-instances", "-1"),
        ("x-min-instances", "10000"),
        ("x-memory-limit", "1"),
        ("x-memory-limit", "-256"),
        ("x-memory-limit", "256M"),
        ("x-memory-limit", "9" * 5000),
        ("x-cpu-limit", "0"),
        ("x-cpu-limit", "2.5"),
        ("x-idle-timeout", "0"),
        ("x-idle-timeout", "soon"),
        ("x-idle-timeout", "999999"),
        ("x-realhost", "a b"),
    ],
)
def test_a_wrong_header_is_named(header: str, value: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        from_headers({**SLIDE, header: value})
    assert raised.value.field.lower() == header


@pytest.mark.parametrize("header", ["x-backend", "x-user", "x-application"])
def test_a_missing_header_is_named(header: str) -> None:
    with pytest.raises(InvalidValue, match="(?i)" + header):
        from_headers({name: value for name, value in SLIDE.items() if name != header})


def test_the_host_that_was_asked_for_counts_beside_those_that_were_declared(tmp_path: Path) -> None:
    def hosts(host: str, **more: str) -> tuple[str, ...]:
        return build(from_headers({**SLIDE, **more}), catalogue(tmp_path), host=host).hosts

    assert hosts("shimoo.com.br") == ("shimoo.com.br", "www.shimoo.com.br")
    assert hosts("old.br") == ("shimoo.com.br", "www.shimoo.com.br", "old.br")
    assert hosts("[::1]", **{"x-user-domains": "", "x-realhost": ""}) == ()


def test_json_says_the_same() -> None:
    check(Wish(backend="b:u:shimoo:1", user="shimoo", application="demo"))
    with pytest.raises(InvalidValue, match="memory_mib"):
        check(Wish(backend="b:u:shimoo:1", user="shimoo", application="demo", memory_mib=0))


def test_hosts_lose_their_ports_and_capitals() -> None:
    assert [host_of(text) for text in ("A.br:8080", "a.br.", "a.br")] == ["a.br"] * 3


def test_options_are_those_of_the_catalogue(tmp_path: Path) -> None:
    apps = catalogue(tmp_path)
    assert apps.choose("tomcat8").options == {"jdk": "11"}
    assert apps.choose("demo;port=9000").port == 9000
    for text in ("tomcat8;jdk=7", "tomcat8;java=8", "tomcat8;jdk", "demo;port=x;y", "demo;port=*", "demo;port=0",
                 "demo;port=65536", "demo;port=-1"):  # fmt: skip
        with pytest.raises(InvalidValue):
            apps.choose(text)
    with pytest.raises(NotFound, match="has: demo, tomcat8"):
        apps.choose("php")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[app.x]\nport = 80\n", "image"),
        ('[app.x]\nimage = "a"\nport = 0\n', "port"),
        ('[app.x]\nimage = "a{v}"\nport = 80\n', "no option"),
        ('[app.x]\nimage = "a"\nport = 80\ncolour = 1\n', "colour"),
        ('[app.x]\nimage = "a"\nport = 80\nmemory = "lots"\n', "memory"),
        ('[app.x]\nimage = "a"\nport = 80\noptions = { v = [] }\n', "options.v"),
        ('[app."X Y"]\nimage = "a"\nport = 80\n', "name"),
        ('[app.x]\nimage = "a"\nport = 80\nworkdir = "/"\n', "workdir"),
        ('[app.x]\nimage = "a"\nport = 80\nhealth_path = "ok"\n', "health_path"),
        ('[app.x]\nimage = "a"\nport = 80\nhealth_interval = "often"\n', "health_interval"),
        ("not toml", "catalogue"),
    ],
)
def test_a_wrong_catalogue_names_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        catalogue(tmp_path, text)
