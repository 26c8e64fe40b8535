"""Every scope classifier: scores in [0, 1], in the order asked, alike in any batch."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from fakes import save_tiny_cross_encoder
from sentence_transformers import CrossEncoder
from transformers import BertForSequenceClassification, BertTokenizerFast

from semedit import CrossEncoderScope, EditMemory, SimilarityScope
from semedit.errors import LoadError
from semedit.models import shipped_model_path
from semedit.router import Router
from semedit.scope.base import Pair

PAIRS = [
    Pair("who runs acme", "who is the head of acme", 0.9),
    Pair("who runs acme", "where is acme", -0.2),
    Pair("a much longer question about the height of the tower", "who runs acme", 0.3),
]


@pytest.fixture(scope="module")
def cross_encoder_path(tmp_path_factory):
    """A one-layer BERT with random weights, saved as people save theirs."""
    folder = tmp_path_factory.mktemp("cross_encoder")
    words = sorted({word for pair in PAIRS for text in (pair.query, pair.text) for word in text.split()})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    save_tiny_cross_encoder(folder, vocabulary=len(words))
    return str(folder)


@pytest.fixture
def saved_as(cross_encoder_path, tmp_path):
    """Saves the same cross-encoder once more, with another configuration or precision."""

    def save(name: str, dtype: torch.dtype = torch.float32, **settings: Any) -> str:
        folder = tmp_path / name
        shutil.copytree(cross_encoder_path, folder)
        model = BertForSequenceClassification.from_pretrained(cross_encoder_path, dtype=dtype)
        model.config.update(settings)
        model.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(params=["similarity", "cross_encoder"])
def scope(request, cross_encoder_path):
    return SimilarityScope() if request.param == "similarity" else CrossEncoderScope(cross_encoder_path)


def test_scores_are_probabilities_in_order_and_alike_in_any_batch(scope):
    scores = scope.score(PAIRS)
    assert len(set(scores)) == len(PAIRS)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert scope.score(PAIRS[::-1]) == pytest.approx(scores[::-1], abs=1e-5)
    assert [scope.score([pair])[0] for pair in PAIRS] == pytest.approx(scores, abs=1e-5)
    assert scope.score([]) == []


def test_similarity_is_the_cosine_cut_to_the_unit_interval():
    assert SimilarityScope().score(PAIRS) == [0.9, 0.0, 0.3]


def test_cross_encoder_is_the_sigmoid_of_its_logit_of_text_and_query(cross_encoder_path):
    model = CrossEncoder(cross_encoder_path)
    expected = []
    for pair in PAIRS:
        inputs = model.tokenizer(pair.text, pair.query, return_tensors="pt")
        with torch.no_grad():
            expected.append(torch.sigmoid(model.model(**inputs).logits[0, 0]).item())
    assert CrossEncoderScope(model).score(PAIRS) == pytest.approx(expected, abs=1e-5)


def test_a_cross_encoder_routes(cross_encoder_path, encoder):
    memory = EditMemory(encoder=encoder)
    memory.add("who runs acme", "Jane")
    scope = CrossEncoderScope(cross_encoder_path, threshold=0.0, floor=0.4)
    # two of six and three words are shared, 2 / sqrt(18) = 0.47; then none is
    near, far = Router(memory, scope).route(["who is the head of acme", "where is the tower"])
    assert near.score == pytest.approx(scope.score([Pair(near.query, "who runs acme", 0.47)])[0])
    assert near.in_scope
    assert far.score is None
    assert not far.in_scope


def test_threshold_and_floor_come_from_the_configuration_unless_they_are_given(cross_encoder_path, saved_as):
    plain = CrossEncoderScope(cross_encoder_path)
    assert (plain.threshold, plain.floor) == (0.5, 0.4)
    configured = saved_as("configured", semedit={"threshold": 0.7, "floor": 0.3})
    assert (CrossEncoderScope(configured).threshold, CrossEncoderScope(configured).floor) == (0.7, 0.3)
    given = CrossEncoderScope(configured, threshold=0.0, floor=0.1)
    assert (given.threshold, given.floor) == (0.0, 0.1)


def test_half_precision_weights_are_run_in_single_precision_on_the_cpu(cross_encoder_path, saved_as):
    half = CrossEncoderScope(saved_as("half", torch.float16))
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    assert half.score(PAIRS) == pytest.approx(CrossEncoderScope(cross_encoder_path).score(PAIRS), abs=5e-3)


def test_a_fingerprint_names_the_model_and_digests_its_weights(cross_encoder_path, saved_as):
    scope = CrossEncoderScope(cross_encoder_path)
    name, digest = scope.fingerprint.split("@")
    assert cross_encoder_path.endswith(name)
    assert len(digest) == 16
    copy = CrossEncoderScope(saved_as("copy"))
    assert copy.fingerprint == f"copy@{digest}"
    with torch.no_grad():
        next(copy.model.parameters())[0, 0] += 1
    assert CrossEncoderScope(copy.model).fingerprint.split("@")[1] != digest
    assert SimilarityScope().fingerprint == "similarity"


def test_what_is_no_scope_classifier_is_refused(tmp_path, saved_as):
    with pytest.raises(LoadError, match=r"cannot load the scope classifier .*nowhere"):
        CrossEncoderScope(str(tmp_path / "nowhere"))
    pair_of_labels = CrossEncoder(saved_as("two"), num_labels=2, model_kwargs={"ignore_mismatched_sizes": True})
    with pytest.raises(LoadError, match="has 2 labels; a scope classifier has one"):
        CrossEncoderScope(pair_of_labels)


def test_without_a_name_the_shipped_classifier_is_taken(cross_encoder_path, monkeypatch):
    assert shipped_model_path("scope") == shipped_model_path().parent / "scope"
    monkeypatch.setattr("semedit.scope.cross_encoder.shipped_model_path", {"scope": cross_encoder_path}.get)
    shipped = CrossEncoderScope()
    assert shipped.score(PAIRS) == CrossEncoderScope(cross_encoder_path).score(PAIRS)
    assert shipped.fingerprint.startswith("semedit-scope@")
