import pytest

from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code
from taskgrant.protocols.wording import outcome_unknown, sentence

WHY = "the reason."
TABLE = {
    "denied": (Refusal(Code.NO_GRANT, WHY), '"x" was refused: the reason. It cannot be asked for from here.'),
    "can ask": (
        Refusal(Code.NO_GRANT, WHY, can_ask=True),
        '"x" was refused: the reason. Access to it can be asked for.',
    ),
    "passing": (Refusal(Code.RATE_LIMITED, WHY), '"x" was refused: the reason. It may be tried again later.'),
    "no reason": (
        Refusal(Code.FROZEN, ""),
        '"x" was refused: no reason was given. It cannot be asked for from here.',
    ),
}


@pytest.mark.parametrize(("refusal", "text"), TABLE.values(), ids=TABLE.keys())
def test_refusals(refusal, text):
    assert sentence('"x"', refusal) == text
    assert not outcome_unknown(refusal)


@pytest.mark.parametrize(
    "refusal", [Refusal(Code.REVOKED, WHY, begun=True), Refusal(Code.OUTCOME_UNKNOWN, WHY)]
)
def test_what_may_have_happened_is_no_refusal(refusal):
    assert outcome_unknown(refusal)
    text = sentence('"x"', refusal)
    assert "may have taken effect" in text
    assert "was refused" not in text
