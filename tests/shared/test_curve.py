"""Key files: one kind is never taken for the other, and an error never holds a key."""

from __future__ import annotations

import contextlib

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from zbeam_shared import curve, paths
from zbeam_shared.curve import KeyTextError
from zbeam_shared.errors import ZbeamError

KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLHa{%d"


def test_what_is_written_is_read() -> None:
    for _ in range(20):
        public, secret = (key.decode() for key in zmq.curve_keypair())
        assert curve.parse(curve.render("public", public, "mine"), "public").key == public
        assert curve.parse(curve.render("secret", secret, "mine"), "secret").key == secret


def test_a_second_line_makes_an_admin() -> None:
    assert curve.parse(f"\n# the boss\npublic {KEY}\r\n  admin \n\n", "public") == (KEY, True)
    assert not curve.parse(f"public   {KEY}", "public").admin


def test_not_everything_of_the_right_length_is_a_key() -> None:
    assert curve.is_key("%nSc0" * 8)
    assert not curve.is_key("%nSc1" * 8), "five characters that are more than 32 bits"
    assert not curve.is_key("a" * 39 + "~")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("# only words\n#\n", "holds no key"),
        (KEY, "must hold a line"),
        (f"public {KEY[:-1]}", "must hold a line"),
        (f"public {KEY}x", "must hold a line"),
        (f"private {KEY}", "must hold a line"),
        (f"secret {KEY}", "a secret key never leaves its owner"),
        (f"public {KEY}\nAdmin", "may hold one more line"),
        (f"public {KEY}\nadmin\nadmin", "may hold one more line"),
        (f"public {KEY}\npublic {KEY}", "may hold one more line"),
    ],
)
def test_what_is_no_key_is_told_without_repeating_it(text: str, says: str) -> None:
    with pytest.raises(KeyTextError, match=says) as caught:
        curve.parse(text, "public")
    assert KEY[:8] not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_key_or_an_error(text: str) -> None:
    kinds: tuple[curve.Kind, ...] = ("public", "secret")
    for kind in kinds:
        with contextlib.suppress(KeyTextError):
            assert curve.is_key(curve.parse(text, kind).key)


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("tcp://zbeam.example:7411", ("zbeam.example", 7411)),
        ("tcp://10.0.0.1:1", ("10.0.0.1", 1)),
        ("tcp://[fd00::1]:65535", ("fd00::1", 65535)),
        *((f"tcp://{bad}", None) for bad in (
            "", ":1", "h", "h:", "h:0", "h:65536", "h:-1", "h:1x", "h:²", "a/b:1", "::1:5", "[h]:1",
            "user@h:1", "../../x:1",
        )),
    ],
)  # fmt: skip
def test_endpoints_on_other_machines(endpoint: str, found: tuple[str, int] | None) -> None:
    assert paths.is_remote(endpoint)
    if found is not None:
        assert paths.host_and_port(endpoint) == found
        return
    with pytest.raises(ZbeamError) as caught:
        paths.host_and_port(endpoint)
    assert caught.value.code == "config_invalid"
