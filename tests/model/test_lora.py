"""LoRA adapters: added at their scale, part of what a cache depends on, refused where they do not
fit."""

from pathlib import Path

import pytest

from innkeeper.backends.llama_cpp import load
from innkeeper.core import EngineConfig, LoraAdapter
from innkeeper.errors import EngineLoadError, NotFoundError
from innkeeper.serving.fit import check_model
from tests.model.test_llama_backend import Session
from tests.model.tiny_models import write_llama_lora

PROMPT = "Once upon a time the innkeeper said that "


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama_lora(tmp_path_factory.mktemp("loras") / "rowdy.gguf")


def config(model: Path, *loras: LoraAdapter) -> EngineConfig:
    return EngineConfig(
        backend="llama_cpp", path=str(model), name="tiny", num_ctx=512, num_pool=512, loras=loras
    )


def reply(model: Path, *loras: LoraAdapter) -> tuple[str, str]:
    """(text, what the states of its cache depend on)"""
    session = Session(model, loras=loras)
    request = session.submit(PROMPT, max_tokens=40)
    session.run()
    found = session.text(request), session.runner.state_key
    assert [each.path for each in session.runner.facts.loras] == ["rowdy.gguf"] * len(loras)
    session.runner.close()
    return found


def test_an_adapter_changes_the_reply_as_far_as_its_scale(tiny_llama: Path, lora: Path) -> None:
    plain, plain_key = reply(tiny_llama)
    none, none_key = reply(tiny_llama, LoraAdapter(str(lora), 0.0))
    whole, whole_key = reply(tiny_llama, LoraAdapter(str(lora)))
    twice, _ = reply(tiny_llama, LoraAdapter(str(lora), 2.0))
    assert none == plain and len({plain, whole, twice}) == 3
    assert len({plain_key, none_key, whole_key}) == 3, "no cache of one serves another"


def test_an_adapter_of_another_shape_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    other = write_llama_lora(tmp_path / "wide.gguf", width=96)
    with pytest.raises(EngineLoadError, match=r"wide\.gguf does not fit this model"):
        load(config(tiny_llama, LoraAdapter(str(other))), lambda fraction: None)


def test_adapters_are_counted_and_checked_before_the_load(
    tiny_llama: Path, lora: Path, tmp_path: Path
) -> None:
    plain = check_model(config(tiny_llama))
    more = check_model(config(tiny_llama, LoraAdapter(str(lora))))
    assert more.ram_bytes - plain.ram_bytes == lora.stat().st_size
    with pytest.raises(EngineLoadError, match="no LoRA adapter"):
        check_model(config(tiny_llama, LoraAdapter(str(tiny_llama))))
    with pytest.raises(NotFoundError):
        check_model(config(tiny_llama, LoraAdapter(str(tmp_path / "gone.gguf"))))
