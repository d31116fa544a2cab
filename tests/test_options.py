"""The options of serving."""

import ast
import inspect
from pathlib import Path

import fanwire
import pytest
from fanwire import options
from fanwire.options import OWN, Options, check_options


def test_every_setting_of_the_engine_is_an_option_or_the_hubs_own() -> None:
    stub = ast.parse((Path(fanwire.__file__).parent / "_engine.pyi").read_text())
    settings = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    new = next(node for node in settings.body if isinstance(node, ast.FunctionDef))
    names = {argument.arg for argument in new.args.kwonlyargs}
    assert names - {
        "shards",
        "channels",
        "snapshots",
        "ask_opening",
        "ask_subscribing",
        "tell_connected",
        "signalr_paths",
    } == set(Options.__annotations__) - set(OWN)


def test_every_option_has_a_word_on_it() -> None:
    source = inspect.getsource(options.Options)
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, word in zip(body.body[1::2], body.body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(word, ast.Expr)


@pytest.mark.parametrize("name", ["drain_timeout", "openings_max"])
def test_the_hubs_own_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= . ?(seconds)?, not -1"):
        check_options({name: -1})


@pytest.mark.anyio
async def test_the_environment_chooses_the_poller_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANWIRE_POLLER", "epoll")
    async with fanwire.Hub().serve("127.0.0.1:0") as serving:
        assert serving.poller == "epoll"
    monkeypatch.setenv("FANWIRE_POLLER", "kqueue")
    with pytest.raises(ValueError, match="poller is \"kqueue\", must be 'epoll' or 'uring'"):
        async with fanwire.Hub().serve("127.0.0.1:0"):
            pass
