"""What deploy/ has for Prometheus and Grafana: held to the metrics that there are, to promtool, and to a Prometheus."""

import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import RelayConfig
from support.clients import refusal
from support.scraped import NO_PROMTOOL, PROMTOOL, everything, everything_of_one, promtool

DEPLOY = Path(__file__).parents[1] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "fanwire.rules.yml"
SERVER = shutil.which("prometheus")
NAME = re.compile(r"\b(?:fanwire|process)_\w+")
BEHIND = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMTOOL)


def names() -> set[str]:
    """Of all series that ``/metrics`` can have."""
    families = [*everything().collect(), *everything_of_one().collect()]
    return {family.name + end for family in families for end in BEHIND[family.type]}


def panels() -> list[dict[str, Any]]:
    """Those of the dashboard that show something."""
    board = json.loads((DEPLOY / "grafana/fanwire.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Of the dashboard, each by its panel and letter, with its variables filled in."""
    filled = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in filled.items():
                text = text.replace(variable, value)
            assert "$" not in text
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def test_the_dashboard_and_the_alerts_name_metrics_that_exist() -> None:
    known = names()
    for title, expression in expressions().items():
        used = set(NAME.findall(expression))
        assert used <= known, title
        assert used or "up{" in expression, title
    used = set(NAME.findall(re.sub(r"\{\{.*?\}\}", "", RULES.read_text())))
    assert used <= known | {"fanwire_rules"}


def test_the_page_names_metrics_and_alerts_that_exist() -> None:
    page = (DEPLOY.parent / "docs/monitoring.md").read_text()
    series = names()
    known = series | {name.removesuffix("_bucket") for name in series}
    assert set(re.findall(r"`((?:fanwire|process)_\w+)`", page)) <= known
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert set(re.findall(r"`(Fanwire\w+)`", page)) == set(alerts)


def test_the_dashboard_asks_the_data_source_that_its_reader_chooses() -> None:
    board = json.loads((DEPLOY / "grafana/fanwire.json").read_text())
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "job", "instance"]
    assert all(target["datasource"] == chosen for panel in panels() for target in panel["targets"])
    assert all(panel["datasource"] == chosen for panel in panels())
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels()]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@needs_promtool
def test_prometheus_can_read_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(expressions().values())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # which is YAML, too
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


@needs_promtool
def test_each_alert_fires_and_none_for_an_instance_that_is_well() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "fanwire.rules.test.yml")
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tried = (PROMETHEUS / "fanwire.rules.test.yml").read_text()
    for alert in alerts:
        assert f"  - name: {alert}\n" in tried
        assert f"alertname: {alert}, exp_alerts: []" in tried


@needs_promtool
def test_promtool_has_no_complaint_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    shutil.copy(RULES, tmp_path / "rules/fanwire.yml")
    shutil.copy(PROMETHEUS / "prometheus.yml", tmp_path)
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


@contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[str]:
    """A Prometheus that scrapes these and has the alerts, all in seconds: its address."""
    rules = re.sub(r"for: \w+", "for: 0s", RULES.read_text())
    (folder / "fanwire.yml").write_text(re.sub(r"\[\d+m\]", "[10s]", rules))
    scrape = {"job_name": "fanwire", "scrape_interval": "1s", "static_configs": [{"targets": list(targets)}]}
    every = {"evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(
        json.dumps({"global": every, "rule_files": ["fanwire.yml"], "scrape_configs": [scrape]})
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(SERVER),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield address
        finally:
            process.send_signal(signal.SIGTERM)


async def firing(address: str) -> set[str]:
    """The alerts that are."""
    try:
        response = await run_sync(partial(httpx.get, f"http://{address}/api/v1/alerts", trust_env=False))
    except httpx.TransportError:
        return set()  # it does not listen yet
    if response.status_code != 200:
        return set()
    return {one["labels"]["alertname"] for one in response.json()["data"]["alerts"] if one["state"] == "firing"}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.skipif(SERVER is None, reason="there is no prometheus: apt-get install prometheus")
async def test_alerts_fire_in_a_real_prometheus(tmp_path: Path) -> None:
    hub = fanwire.Hub()

    @hub.authenticate
    def broken(request: fanwire.Request) -> None:
        raise RuntimeError("as a database that is away")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/live"
    hub.relay(RelayConfig(path="/live", upstream=(nobody,)))
    wanted = {"FanwireInternalErrors", "FanwireHandshakesFail", "FanwireUpstreamDown", "FanwireRelayCutOff"}
    async with AsyncExitStack() as stack:
        async with hub.serve("127.0.0.1:0", signalr_paths=(), drain_timeout=0.2) as serving:
            address = stack.enter_context(prometheus(tmp_path, serving.address))
            with anyio.fail_after(60):
                while not (seen := await firing(address)) >= wanted:
                    assert (await refusal(serving.address))[0] == 500
                    assert (await refusal(serving.address, "/live"))[0] >= 500
        assert not seen & {"FanwireBackboneDown", "FanwireSourceDown", "FanwireLanesDown"}
        with anyio.fail_after(60):
            while "FanwireDown" not in await firing(address):
                pass
