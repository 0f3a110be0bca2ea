"""An error is a sentence, and knows which part of it is the fix."""

from __future__ import annotations

import pickle

from edge_runtime.core.errors import DeviceError, EdgeError


def test_the_sentence_is_what_happened_and_then_the_fix():
    error = DeviceError("no camera 'imx296' (found: imx219)", "set camera.path or check the cable")
    assert str(error) == "no camera 'imx296' (found: imx219); set camera.path or check the cable"
    assert (error.what, error.fix) == ("no camera 'imx296' (found: imx219)", "set camera.path or check the cable")


def test_without_a_fix_the_sentence_is_what_happened():
    assert (str(EdgeError("gone")), EdgeError("gone").what, EdgeError("gone").fix) == ("gone", "gone", "")
    assert (str(EdgeError()), EdgeError().fix) == ("", "")


def test_an_error_from_another_process_is_the_same_one():
    error = pickle.loads(pickle.dumps(DeviceError("gone", "plug it in")))
    assert (type(error), str(error), error.what, error.fix) == (DeviceError, "gone; plug it in", "gone", "plug it in")
