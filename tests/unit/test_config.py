"""Settings: four sources, one table, and errors that say where a bad value stands."""

import dataclasses
import os
from pathlib import Path

import pytest

from innkeeper.config import SETTINGS, Settings, is_loopback, load_settings
from innkeeper.errors import SettingsError
from innkeeper.units import MIB


def load(
    home: Path, flags: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> Settings:
    return load_settings(flags or {}, home, environ or {})


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_defaults_hold_where_nothing_is_given(home: Path) -> None:
    assert load(home) == dataclasses.replace(Settings(), home=home)


def test_the_file_beats_the_default(home: Path) -> None:
    write(home, "ctx = 4096")
    assert load(home).ctx == 4096


def test_the_environment_beats_the_file(home: Path) -> None:
    write(home, "ctx = 4096")
    assert load(home, environ={"INNKEEPER_CTX": "2048"}).ctx == 2048


def test_a_flag_beats_the_environment(home: Path) -> None:
    assert load(home, {"ctx": "1024"}, {"INNKEEPER_CTX": "2048"}).ctx == 1024


def test_an_empty_variable_counts_as_not_given(home: Path) -> None:
    assert load(home, environ={"INNKEEPER_CTX": ""}).ctx == Settings().ctx


def test_the_file_is_read_from_the_home_that_was_asked_for(home: Path, tmp_path: Path) -> None:
    write(tmp_path, "ctx = 512")
    assert load(home, environ={"INNKEEPER_HOME": str(tmp_path)}).ctx == 512


def test_the_variables_of_the_setup_are_no_settings(home: Path) -> None:
    environ = {"INNKEEPER_BUILD": "cpu", "INNKEEPER_STAMP": "1 2", "INNKEEPER_PYTHON": "x"}
    assert load(home, environ=environ) == load(home)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gpu_layers", "auto", -1),
        ("gpu_layers", "0", 0),
        ("threads", "AUTO", 0),
        ("no_ui", "yes", True),
        ("no_ui", "0", False),
        ("max_body", "2M", 2 * MIB),
        ("allowed_hosts", "tavern.lan, inn.lan", ("tavern.lan", "inn.lan")),
        ("engine_hang_seconds", "2.5", 2.5),
        ("kv_type", "q8_0", "q8_0"),
    ],
)
def test_texts_become_values(home: Path, name: str, text: str, value: object) -> None:
    assert getattr(load(home, {name: text}), name) == value


def test_the_file_may_hold_toml_types(home: Path) -> None:
    write(home, 'no_ui = true\nengine_hang_seconds = 3\nallowed_hosts = ["inn.lan"]\n')
    settings = load(home)
    assert (settings.no_ui, settings.engine_hang_seconds) == (True, 3.0)
    assert settings.allowed_hosts == ("inn.lan",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ctx", "many"),
        ("ctx", "4096.5"),
        ("ctx", "0"),
        ("ctx", "-1"),
        ("ctx", "9" * 5000),
        ("api_port", "65536"),
        ("api_port", ""),
        ("engine_hang_seconds", "nan"),
        ("engine_hang_seconds", "inf"),
        ("kv_type", "q3"),
        ("no_ui", "maybe"),
        ("max_body", "big"),
        ("host", " "),
    ],
)
def test_a_bad_value_is_refused_with_its_source_and_what_is_allowed(
    home: Path, name: str, text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(home, {name: text})
    allowed = next(setting.allowed for setting in SETTINGS if setting.name == name)
    assert caught.value.field == name
    assert f"--{name.replace('_', '-')}" in str(caught.value) and allowed in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_bad_value_in_the_file_names_the_file(home: Path) -> None:
    write(home, "ctx = true")
    with pytest.raises(SettingsError, match=r"ctx = True \(.*config\.toml\) is not allowed"):
        load(home)


def test_an_unknown_name_in_the_file_gets_the_nearest_one(home: Path) -> None:
    write(home, "ctxx = 4096")
    with pytest.raises(SettingsError, match="'ctxx'; did you mean ctx"):
        load(home)


def test_an_unknown_variable_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"INNKEEPER_API_PROT.*did you mean api_port"):
        load(home, environ={"INNKEEPER_API_PROT": "1"})


def test_a_file_that_is_no_toml_is_one_line(home: Path) -> None:
    write(home, "ctx = = 4")
    with pytest.raises(SettingsError, match=r"config\.toml cannot be read") as caught:
        load(home)
    assert "\n" not in str(caught.value)


def test_the_home_cannot_be_moved_by_its_own_file(home: Path) -> None:
    write(home, 'home = "/elsewhere"')
    with pytest.raises(SettingsError, match="use --home or INNKEEPER_HOME"):
        load(home)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "inn.lan"])
def test_a_public_address_without_a_key_is_refused(home: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="INNKEEPER_API_KEY"):
        load(home, {"host": host})


def test_a_public_address_with_a_key_is_fine(home: Path) -> None:
    assert load(home, {"host": "0.0.0.0", "api_key": "k"}).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.5.0.1"])
def test_loopback_needs_no_key(home: Path, host: str) -> None:
    assert is_loopback(host) and load(home, {"host": host}).host == host


def test_the_key_is_the_first_line_of_its_file(home: Path) -> None:
    (home / "key").write_text("s3cret \nmore\n")
    assert load(home, {"api_key_file": str(home / "key")}).api_key == "s3cret"


@pytest.mark.parametrize("text", ["", "\n", None])
def test_a_key_file_without_a_key_is_refused(home: Path, text: str | None) -> None:
    if text is not None:
        (home / "key").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(home, {"api_key_file": str(home / "key")})
    assert caught.value.field == "api_key_file"


def test_a_bad_secret_is_not_shown(home: Path) -> None:
    write(home, "api_key = 987654321")
    with pytest.raises(SettingsError) as caught:
        load(home)
    assert "987654321" not in str(caught.value)


def test_one_port_for_two_servers_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match="both 7860"):
        load(home, {"api_port": "7860"})
    assert load(home, {"api_port": "7860", "no_ui": True}).api_port == 7860


def test_a_pool_below_the_context_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match="pool = 100 is smaller than ctx = 8192"):
        load(home, {"pool": "100", "ctx": "8192"})


def test_the_default_of_each_setting_is_allowed_by_its_own_rule() -> None:
    for setting in SETTINGS:
        if setting.default not in (None, ()):
            assert setting.parse(setting.shown_default, "default") == setting.default


def test_settings_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().ctx = 1  # type: ignore[misc]


def test_loading_leaves_the_environment_alone(home: Path) -> None:
    before = dict(os.environ)
    load_settings({}, home)
    assert dict(os.environ) == before
