"""A mixed batch is answered alike on every device, in half precision and with a device map."""

from __future__ import annotations

import pytest
import torch
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model
from transformers import AutoModelForCausalLM

import semedit

EDITED, OTHER = "Who runs Acme?", "What is the height of the tower?"
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")],
)


def check(base):
    tokenizer = byte_tokenizer()
    inputs = tokenizer([OTHER, EDITED], return_tensors="pt", padding=True).to(base.device)
    expected = base.generate(**inputs, max_new_tokens=12, do_sample=False)
    for override in ("in_context", "verbatim"):
        model = semedit.wrap(
            base, tokenizer, encoder=WordEncoder(), scope=semedit.SimilarityScope(), override=override
        )
        model.edits.add(EDITED, "Jane Doe")
        got = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        assert got.device == base.device
        assert torch.equal(got[0, : expected.shape[1]], expected[0])
        assert got[1].tolist() != expected[1].tolist()


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_a_device(kind, dtype, device):
    check(tiny_model(kind).to(device, dtype))


def test_a_model_that_a_device_map_spreads_over_cpu_and_disk(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    parts = ["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"]
    places = {**dict.fromkeys(parts, "cpu"), "model.layers.1": "disk"}
    base = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=places, offload_folder=tmp_path / "offload")
    assert base.hf_device_map == places
    assert base.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    check(base)


def test_a_wrapped_model_moves_and_is_saved_as_its_base(tmp_path):
    base = tiny_model("llama")
    model = semedit.wrap(base, byte_tokenizer(), encoder=WordEncoder(), scope=semedit.SimilarityScope())
    model.edits.add(EDITED, "Jane Doe")
    model.to(torch.bfloat16)
    assert base.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(base)
    for name, tensor in base.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
