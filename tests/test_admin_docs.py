"""docs/admin.md: the settings are taken, and each answer that it shows is one of the shape that is answered."""

import re
from pathlib import Path

import fanwire
import msgspec
import pytest
from fanwire.admin import AdminConfig
from fanwire.admin.clients import FORMATS
from fanwire.admin.problems import CODES, ProblemBody
from fanwire.admin.table import ENDPOINTS, LIVE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "admin.md").read_text()
SHOWN = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ANSWERS = {one.answer for one in ENDPOINTS if one.method == "GET"} | {ProblemBody}


@pytest.mark.parametrize("text", SHOWN, ids=range(len(SHOWN)))
def test_an_answer_that_the_page_shows_is_of_a_shape_that_is_answered(text: str) -> None:
    raw = re.sub(r"([:,] *)…", r"\1null", text).encode()
    found = msgspec.json.decode(raw)
    shapes = [
        shape for shape in ANSWERS if {field.encode_name for field in msgspec.structs.fields(shape)} == found.keys()
    ]
    assert len(shapes) == 1, found.keys()
    strict = msgspec.json.decode(raw, type=shapes[0])
    assert msgspec.json.decode(msgspec.json.encode(strict)) == found, "the page leaves nothing out and adds nothing"


def test_the_page_names_each_endpoint_and_each_code() -> None:
    for path in {*(one.path for one in ENDPOINTS), LIVE}:
        assert path in PAGE, path
    for code in CODES.keys() - {"internal"}:
        assert f"`{code}`" in PAGE, code


def test_the_program_of_the_page_makes_a_hub() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = {"fanwire": fanwire, "AdminConfig": AdminConfig}
    exec(code.replace("…", 20 * "x"), names)
    assert isinstance(names["hub"], fanwire.Hub)


def test_each_format_of_the_engine_has_a_name() -> None:
    source = (ROOT / "rust/core/src/protocol/format.rs").read_text()
    assert FORMATS.keys() == set(re.findall(r"^    (\w+) = \d+,$", source, re.MULTILINE))
