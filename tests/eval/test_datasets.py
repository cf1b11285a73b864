from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.datasets import load_set
from tenants.errors import InvalidRequest


def write_set(folder: Path) -> Path:
    corpus = [
        {"_id": "d1", "title": "Kettles", "text": "A kettle boils water.", "metadata": {"year": 1999}},
        {"_id": "d2", "title": "", "text": "A lamp gives light."},
        {"_id": "d3", "text": None},
    ]
    questions = [
        {"_id": "q1", "text": "What boils water?"},
        {"_id": "q2", "text": "What gives light?", "answers": ["a lamp"]},
        {"_id": "q3", "text": "Who painted it?"},
        {"_id": "q4", "text": "What is not there?"},
    ]
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", questions)
    rows = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q2\td2\t2", "q2\td3\t0", "q4\td1\t0", "q1\tgone\t1"]
    (folder / "qrels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_set_is_read_with_what_is_left_out_counted(tmp_path: Path) -> None:
    found = load_set(write_set(tmp_path))
    assert [row.id for row in found.corpus] == ["d1", "d2", "d3"]
    assert found.corpus[0].metadata == {"year": 1999}
    assert [question.id for question in found.questions] == ["q1", "q2"]
    assert found.grades == {"q1": {"d1": 1, "gone": 1}, "q2": {"d2": 2, "d3": 0}}
    assert (found.unjudged, found.missing) == (2, 1)
    assert found.queries_file == "queries.jsonl"


def test_the_digests_follow_the_content(tmp_path: Path) -> None:
    before = load_set(write_set(tmp_path)).digests
    with (tmp_path / "qrels.tsv").open("a", encoding="utf-8") as file:
        file.write("q3\td1\t1\n")
    after = load_set(tmp_path).digests
    assert (before.corpus, before.queries) == (after.corpus, after.queries)
    assert before.qrels != after.qrels


def test_one_of_several_files_of_questions_must_be_chosen(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "queries.jsonl").rename(tmp_path / "queries_a.jsonl")
    write_lines(tmp_path / "queries_b.jsonl", [{"_id": "q1", "text": "And what boils?"}])
    with pytest.raises(InvalidRequest, match=r"queries_a.jsonl, queries_b.jsonl"):
        load_set(tmp_path)
    assert [q.text for q in load_set(tmp_path, queries=Path("queries_b.jsonl")).questions] == ["And what boils?"]
    assert load_set(tmp_path, queries=tmp_path / "queries_a.jsonl").queries_file == "queries_a.jsonl"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"title": "no id"}\n', "line 2: _id"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "'a' twice"),
        ("queries.jsonl", "not json\n", "line 1"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "line 2"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq9\td1\t1\n", "judges no document"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, content: str, complaint: str) -> None:
    write_set(tmp_path)
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        load_set(tmp_path)
    assert caught.value.code == "invalid_set"
    assert file in caught.value.detail


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    write_set(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InvalidRequest, match=file):
        load_set(tmp_path)


def test_a_sample_is_always_the_same_and_keeps_the_order(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_lines(tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": "?"} for i in range(100)])
    rows = ["query-id\tcorpus-id\tscore", *(f"q{i}\td1\t1" for i in range(100))]
    (tmp_path / "qrels.tsv").write_text("\n".join(rows), encoding="utf-8")
    whole = load_set(tmp_path)
    chosen = [question.id for question in whole.sample(10).questions]
    assert chosen == [question.id for question in whole.sample(10).questions]
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
    assert len(set(chosen)) == 10
    assert chosen != [f"q{i}" for i in range(10)]
    assert whole.sample(None) is whole
    assert whole.sample(100) is whole
