import json

import pytest

from taskgrant.client import operations
from taskgrant.errors import Refused


@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b"{}", b'{"task": 1}', b'{"task": {}, "task": {}}'])
def test_an_answer_that_is_not_understood_is_an_error(body: bytes) -> None:
    with pytest.raises(Refused, match="is not understood") as refused:
        operations.start({"purpose": "p"}, None).answer(201, body)
    assert refused.value.code == "authority_unavailable"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code": 7}'])
def test_an_error_that_is_no_problem_document_is_one_too(body: bytes) -> None:
    assert operations.refusal(502, body).code == "authority_unavailable"


def test_a_problem_without_detail_says_its_title() -> None:
    refused = operations.refusal(409, json.dumps({"code": "frozen", "title": "Conflict"}).encode())
    assert (refused.code, refused.reason) == ("frozen", "Conflict")


def test_a_rotation_needs_a_handle() -> None:
    with pytest.raises(Refused, match="no handle"):
        operations.rotate("task-1").answer(200, b'{"handle": null}')


def test_a_replay_names_the_proxy_without_credentials() -> None:
    assert operations.environment(None, "http://h:1")["HTTP_PROXY"] == "http://h:1"
    assert "TASKGRANT_TASK" not in operations.environment(None, "http://h:1")
    assert operations.environment("a@b", "http://h:1")["http_proxy"] == "http://task:a%40b@h:1"


def test_with_a_trust_directory_https_goes_by_the_proxy_and_is_trusted() -> None:
    variables = operations.environment("h", "http://h:1", "/trust")
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == "http://task:h@h:1"
    assert variables["SSL_CERT_FILE"] == "/trust/bundle.pem"
    assert "HTTPS_PROXY" not in operations.environment("h", "http://h:1")
