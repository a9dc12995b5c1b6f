"""Settings: read from the environment, refused with the mend, documented, and the same in every process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.errors import SettingsError
from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.settings import PREFIX, Settings

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def read(**variables: str) -> Settings:
    return Settings.from_environment({PREFIX + name: value for name, value in variables.items()})


def test_nothing_set_is_the_safe_default() -> None:
    settings = Settings.from_environment({"PATH": "/bin", "MONKEY": "1", "MONKEY_CODERS": "2"})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"
    assert settings.max_body_bytes == 1024 * 1024
    settings.require_safe_address()


def test_every_kind_of_value_is_read_from_text() -> None:
    settings = read(
        HOST="::1", CATALOG="/etc/models.yaml", QUANTUM="off", EXPLORE="0", COLLAPSE="combined", MAX_BATCH="7"
    )
    assert (settings.host, settings.catalog) == ("::1", Path("/etc/models.yaml"))
    assert (settings.quantum, settings.explore, settings.collapse, settings.max_batch) == (False, False, "combined", 7)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("EXPLOR", "EXPLORE"), ("MAXBATCH", "MAX_BATCH"), ("STATEDIR", "STATE_DIR"), ("HOSTS", "HOST")],
)
def test_a_misspelt_variable_is_refused_with_the_right_one(misspelt: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{misspelt: "1"})
    assert str(caught.value) == f"there is no setting {PREFIX}{misspelt}; did you mean {PREFIX}{meant}?"


def test_a_variable_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(SettingsError, match=r"^there is no setting MONKEY_CODER_BANANA$"):
        read(BANANA="1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BATCH", "0"),
        ("MAX_BATCH", "5000"),
        ("MAX_BATCH", "many"),
        ("MAX_QUEUE", "-1"),
        ("MAX_QUEUE", ""),
        ("MAX_BODY_BYTES", "10"),
        ("MAX_BODY_BYTES", "1.5"),
        ("QUANTUM", "perhaps"),
        ("COLLAPSE", "dice"),
        ("REDIS_URL", "redis://localhost:six"),
        ("REDIS_URL", "redis://localhost:66379/0"),
        ("REDIS_URL", "redis://localhost:6379/zero"),
        ("REDIS_URL", "redis://[::1/0"),
        ("REDIS_URL", "unix://"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{PREFIX}{name}: "):
        read(**{name: value})


@pytest.mark.parametrize(
    "url", ["redis://", "redis://u:p%40@[::1]:6379/15?protocol=3", "rediss://h/", "unix:///run/redis.sock?db=2"]
)
def test_every_form_of_an_address_of_redis_is_taken(url: str) -> None:
    assert read(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_addresses_are_safe(host: str) -> None:
    Settings(host=host).require_safe_address()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "example.org", "localhost.evil.org", ""])
def test_other_addresses_are_refused_with_the_reason_and_the_mend(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(host=host).require_safe_address()
    assert "no API keys" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_with_api_keys_any_address_will_do() -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        Settings(host=host).require_safe_address(keyed=True)


@pytest.mark.parametrize("token", ["too-short", "with a space in it", "with-ünïcode-letters"])
def test_a_bad_scrape_token_is_refused_and_no_token_is_said(token: str) -> None:
    with pytest.raises(SettingsError, match=f"^{PREFIX}SCRAPE_TOKEN: ") as caught:
        read(SCRAPE_TOKEN=token)
    assert token not in str(caught.value)
    assert "a-scrape-token-of-ours" not in repr(Settings(scrape_token="a-scrape-token-of-ours"))


def test_what_clients_read_is_ignored() -> None:
    assert read(API_KEY="mk_000000000000_secret") == Settings()


_PATHS = st.from_regex(r"[a-zA-Z0-9_./ -]{1,20}", fullmatch=True).map(Path)


@given(
    st.builds(
        Settings,
        host=st.sampled_from(["127.0.0.1", "::1", "localhost"]),
        catalog=st.none() | _PATHS,
        state_dir=_PATHS,
        quantum=st.booleans(),
        collapse=st.sampled_from(COLLAPSE_NAMES),
        explore=st.booleans(),
        max_body_bytes=st.integers(1024, 10**12),
        max_batch=st.integers(1, 4096),
        max_queue=st.integers(1, 10**9),
        scrape_token=st.none() | st.text("abcXYZ019-_=+/", min_size=16, max_size=60),
    )
)
def test_worker_processes_read_back_the_same_settings(settings: Settings) -> None:
    assert Settings.from_environment(settings.to_environment()) == settings


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    row = next(line for line in REFERENCE.read_text().splitlines() if f"`{PREFIX}{name.upper()}`" in line)
    default = "none" if field.default is None else str(field.default)
    assert row.split("|")[2].strip().strip("`").lower() == default.lower()
