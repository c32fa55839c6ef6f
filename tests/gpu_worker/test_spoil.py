"""Bad uploads of the simulator: cut, or lost, and only as many as were asked for."""

import pytest

from contract.messages import FailureCode
from gpu_worker.faults import Faults
from gpu_worker.spoil import spoil_by, unspoiled, upload_fault
from gpu_worker.upload import UploadFailed
from tests.gpu_worker.messages import message


def test_without_faults_nothing_is_touched() -> None:
    assert spoil_by(Faults()) is unspoiled
    assert unspoiled(b"whole", message()) == b"whole"


def test_a_bad_upload_is_half_a_file() -> None:
    assert spoil_by(Faults.parse("bad_upload=1"))(b"1234", message()) == b"12"


def test_a_failed_upload_is_told_to_the_client_as_one() -> None:
    with pytest.raises(UploadFailed) as failed:
        spoil_by(Faults.parse("upload_failed=1"))(b"1234", message())

    assert failed.value.failure.code is FailureCode.UPLOAD_FAILED
    assert failed.value.failure.retryable


def test_faults_of_the_engine_do_no_harm_here() -> None:
    assert spoil_by(Faults.parse("crash=1"))(b"1234", message()) == b"1234"


def test_another_run_has_another_chance() -> None:
    faults = Faults.parse("bad_upload=0.5")

    assert {upload_fault(faults, "a cat", 1, run) for run in range(30)} == {None, "bad_upload"}
