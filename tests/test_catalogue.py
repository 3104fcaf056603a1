"""The page of faults says what the tests prove, no more and no less."""

from pathlib import Path

import pytest

from tests.catalogue import PAGE, ROWS, Proof, page, proofs


@pytest.fixture(scope="module")
def all_proofs() -> list[Proof]:
    return list(proofs())


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_is_provoked_by_a_test_of_make_test(row: int, all_proofs: list[Proof]) -> None:
    assert [proof for proof in all_proofs if proof.row == row and "soak" not in proof.path.parts]


def test_no_test_names_a_fault_that_is_not_listed(all_proofs: list[Proof]) -> None:
    assert {proof.row for proof in all_proofs} <= ROWS.keys()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tests.catalogue"


def test_marks_of_functions_and_modules_are_found(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "pytestmark = [pytest.mark.other, pytest.mark.fault(7)]\n"
        "@pytest.mark.fault(1, 3)\n@pytest.mark.parametrize('a', [9])\ndef test_a(a): ...\n"
        "def test_b(): ...\ndef helper(): ...\n"
    )
    found = [(proof.row, proof.sentence) for proof in proofs(tmp_path)]
    assert found == [(1, "a"), (3, "a"), (7, "a"), (7, "b")]
