"""JSON that is kept: what is read is what was written, however it is laid out."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.files import json_bytes

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text() | st.sampled_from(["[\n  1,\n  2\n]", "[ 1 ]", '["\n1\n"]'])
VALUES = st.recursive(
    NUMBERS | TEXTS | st.booleans() | st.none(),
    lambda inner: st.lists(inner) | st.lists(NUMBERS) | st.dictionaries(TEXTS, inner),
)


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert json.loads(json_bytes(value)) == value


def test_numbers_stand_on_one_line() -> None:
    written = json_bytes({"curve": [1, -2.5, 3e-07], "names": ["a", "b"]}).decode()
    assert '"curve": [1, -2.5, 3e-07]' in written
    assert written.count("\n") == 7
