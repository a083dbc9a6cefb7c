"""Parameters: typed, closed, and errors that name the key and what it should have been."""

import pytest
from pydantic import Field

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, load_params


class Light(Params):
    strength: float = Field(1.0, ge=0)


class Example(Params):
    min_side: int = 512
    light: Light = Light()


def load(tmp_path, text, section="screen"):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(Example, section, path)


def test_values_and_defaults(tmp_path):
    params = load(tmp_path, "screen: {min_side: 64, light: {strength: 2}}")
    assert params == Example(min_side=64, light=Light(strength=2.0))
    assert load(tmp_path, "screen:") == Example()
    assert load(tmp_path, "sources: {mine: {min_side: 3}}", "sources.mine").min_side == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("screen: {min_sid: 64}", "nearest valid key is 'min_side'"),
        ("screen: {light: {strenght: 2}}", "nearest valid key is 'strength'"),
        ("screen: {min_side: many}", r"screen.min_side: .*integer.*found 'many'"),
        ("screen: {light: {strength: -1}}", "greater than or equal to 0"),
        ("sceen: {}", "Did you mean 'sceen'"),
        ("screen: 3", "should be a mapping"),
        ("- a", "expected a mapping"),
        ("screen: {", "not valid YAML"),
    ],
)
def test_problems_are_named(tmp_path, text, message):
    with pytest.raises(LineamentError, match=message):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LineamentError, match="no such file"):
        load_params(Example, "screen", tmp_path / "none.yaml")
