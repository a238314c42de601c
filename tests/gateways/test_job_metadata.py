"""Who a job is for, in its own metadata: within 16 pairs, the user's own first, and read back the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.gateways.jobs import MARK, job_metadata, read_creator

ID = "0" * 32
_KEYS = st.sampled_from(WELL_KNOWN) | st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True).filter(lambda k: k != MARK)
_VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1, max_size=40
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=15))
def test_what_is_said_is_read_back(fields: dict[str, str]) -> None:
    attribution = Attribution.of(fields)
    said = job_metadata(attribution, ID)
    assert said is not None and len(said) <= 16
    assert all(len(key) <= 64 and len(value) <= 512 for key, value in said.items())
    found = read_creator(said)
    assert found is not None and found.operation_id == ID
    whole = {
        key: value for key, value in attribution.as_dict().items() if not any(0x7F <= ord(c) < 0xA0 for c in value)
    }
    assert whole.items() <= found.attribution.as_dict().items()


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.just("mine"), max_size=16), st.dictionaries(_KEYS, _VALUES))
def test_the_users_own_pairs_stay(own: dict[str, str], fields: dict[str, str]) -> None:
    said = job_metadata(Attribution.of(fields), ID, own)
    if said is not None:
        assert own.items() <= said.items() and len(said) <= 16
    else:
        assert len(own) == 16 or MARK in own


def test_well_known_fields_go_first_where_not_all_fit() -> None:
    own = {f"k{number}": "v" for number in range(13)}
    said = job_metadata(Attribution.of({"tenant_id": "acme", "workflow": "w", "zone": "z"}), ID, own)
    assert said is not None
    assert set(said) - set(own) == {MARK, "tenant_id", "workflow"}


def test_metadata_that_is_no_map_is_left_alone() -> None:
    assert job_metadata(Attribution.of({"tenant_id": "acme"}), ID, "text") is None
    assert read_creator("text") is None and read_creator({"order": "1"}) is None
    found = read_creator({"tenant_id": "acme", "order": "1"})  # the user's own words
    assert found is not None and found.attribution == Attribution.of({"tenant_id": "acme"})
