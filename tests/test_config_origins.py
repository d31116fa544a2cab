"""An origin as the upstream of a relay: it is the backbone's URL, written where users of a relay look for it."""

from pathlib import Path
from typing import Any

import pytest
from fanwire.cli.config import ServeConfig, load
from fanwire.cli.options import options_in, options_of
from fanwire.config.kinds import Secret
from fanwire.relay.config import RelayConfig

PUBLIC = '[backbone]\npublic = ["odds:*"]\n'
ORIGIN = '[[relay]]\nupstream = "fanwire://origin:8000"\n'
NO_RELAY = "means nothing where upstream is that of an origin"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that errors say `fanwire.toml`, and no more."""
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environment: dict[str, str] | None = None, **given: Any) -> ServeConfig:
    """The settings of a file of this text, variables and options."""
    Path("fanwire.toml").write_text(text)
    options = [*options_in(environment or {}), *options_of(given)]
    return load(Path("fanwire.toml"), environment or {}, options)


def errors(text: str, environment: dict[str, str] | None = None, **given: Any) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(ExceptionGroup) as raised:
        loaded(text, environment, **given)
    return [str(error) for error in raised.value.exceptions]


def test_it_is_the_backbone_and_no_relay() -> None:
    config = loaded(PUBLIC + ORIGIN)
    assert config.backbone == loaded(PUBLIC + 'url = "fanwire://origin:8000"\n').backbone
    assert config.backbone.is_edge and config.relay == ()
    with_backend = loaded(f'{PUBLIC}{ORIGIN}[[relay]]\npath = "/live"\nupstream = "http://b/live"\n')
    assert with_backend.backbone == config.backbone
    assert [relay.path for relay in with_backend.relay] == ["/live"]


def test_it_may_stand_in_a_variable_or_an_option() -> None:
    table = f'{PUBLIC}[[relay]]\nupstream = {{ env = "ORIGIN" }}\n'
    assert loaded(table, {"ORIGIN": "fanwires://token@o"}).backbone.url == Secret("fanwires://token@o")
    assert loaded("", upstream=["fanwire://o"], public=["a", "b"]).backbone.public == ("a", "b")
    variables = {"FANWIRE_UPSTREAM": "fanwire://o:1,p:2", "FANWIRE_PUBLIC": "a,b"}
    assert loaded("", variables).backbone.url == Secret("fanwire://o:1,p:2")


@pytest.mark.parametrize(
    ("text", "environment", "given", "told"),
    [
        (
            f'{PUBLIC}url = "redis://r"\n{ORIGIN}',
            {},
            {},
            ["fanwire.toml:5: relay[0].upstream is that of an origin, and backbone.url is set: a hub has one of them"],
        ),
        (
            PUBLIC,
            {},
            {"backbone": "redis://r", "upstream": ["fanwire://o"]},
            ["--upstream is that of an origin, and backbone.url is set: a hub has one of them"],
        ),
        (
            PUBLIC + ORIGIN + ORIGIN,
            {},
            {},
            [
                "fanwire.toml:6: relay[1].upstream is that of an origin, and relay[0].upstream is set: "
                "a hub has one of them"
            ],
        ),
        (
            f'{PUBLIC}[[relay]]\nupstream = ["fanwire://o", "fanwire://p"]\n',
            {},
            {},
            [
                "fanwire.toml:4: relay[0].upstream names several origins, and a hub has one: its addresses stand in "
                "one URL, as fanwire://HOST:PORT,HOST:PORT"
            ],
        ),
        (
            f'{PUBLIC}[[relay]]\nupstream = ["http://b", "fanwire://o"]\n',
            {},
            {},
            [
                "fanwire.toml:4: relay[0].upstream[0] must be that of an origin, fanwire://HOST:PORT, as another one "
                "here is: a backend is a relay of its own"
            ],
        ),
        (
            f'{PUBLIC}{ORIGIN}path = "/live"\nlanes.max = 3\n',
            {},
            {},
            [f"fanwire.toml:5: relay[0].path {NO_RELAY}", f"fanwire.toml:6: relay[0].lanes {NO_RELAY}"],
        ),
        ("", {}, {"upstream": ["fanwire://o"], "public": ["*"], "share": ["A/B"]}, [f"--share {NO_RELAY}"]),
        (PUBLIC + ORIGIN, {"FANWIRE_LINGER": "3s"}, {}, [f"FANWIRE_LINGER {NO_RELAY}"]),
        (ORIGIN, {}, {}, ["backbone.public is missing: name the channels that anyone may watch here"]),
        (
            f'{PUBLIC}on_down = "local"\n{ORIGIN}',
            {},
            {},
            ['fanwire.toml:3: backbone.on_down is "local", and an edge publishes nothing: leave it out'],
        ),
        (
            f'{PUBLIC}{ORIGIN}[[source]]\nkind = "redis-stream"\nurl = "redis://r"\nstream = "s"\nchannel = "a"\n',
            {},
            {},
            [r"source publishes, and an edge does not: read it at the origin"],
        ),
    ],
)
def test_what_does_not_go_with_it_is_named_with_it(
    text: str, environment: dict[str, str], given: dict[str, Any], told: list[str]
) -> None:
    found = errors(text, environment, **given)
    assert len(found) == len(told)
    for one, expected in zip(found, told, strict=True):
        assert expected in one


def test_no_error_shows_its_token() -> None:
    for upstream in (
        '"fanwire://s3cret@o"',
        '["http://b", "fanwire://s3cret@o"]',
        '["fanwire://s3cret@o", "fanwires://p"]',
    ):
        assert "s3cret" not in "".join(errors(f"[[relay]]\nupstream = {upstream}\n"))


def test_a_program_is_told_where_an_origin_belongs() -> None:
    with pytest.raises(ValueError, match=r"RelayConfig.upstream.* that of an origin: Hub\(backbone=\.\.\.\) takes it"):
        RelayConfig(path="/live", upstream=("fanwire://o",))


def test_who_asks_the_origin_says_so_and_needs_no_public_channels() -> None:
    config = loaded('[backbone]\nadmit = "origin"\nadmit_for = "0s"\ntrusted_proxies = ["10.0.0.0/8"]\n' + ORIGIN)
    assert (config.backbone.admit, config.backbone.admit_for, config.backbone.public) == ("origin", 0.0, ())
    assert loaded("", upstream=["fanwire://o"], edge_admit="origin").backbone.admit == "origin"
    for text, told in (
        ('[backbone]\nurl = "redis://r"\nadmit = "origin"\n', "backbone.admit is for an edge"),
        (f'{PUBLIC}admit_for = "0s"\n{ORIGIN}', 'backbone.admit_for is for an edge that asks, with admit = "origin"'),
    ):
        assert any(told in one for one in errors(text))
