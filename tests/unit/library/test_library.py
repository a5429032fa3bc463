"""Models on this computer: found, named, told apart, removed; nothing else is touched."""

import os
from pathlib import Path

import pytest

from innkeeper.errors import InvalidRequestError, NotFoundError
from innkeeper.library import Library, resolve
from tests.unit.formats import made_models as made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def library(models: Path) -> Library:
    return Library(models)


def names(library: Library) -> list[str]:
    return [model.name for model in library.models()]


def test_a_file_that_is_dropped_in_appears_and_one_that_is_deleted_is_gone(
    models: Path, library: Library
) -> None:
    assert names(library) == []
    path = made.gguf(models / "tale-Q4_K_M.gguf")
    assert names(library) == ["tale-Q4_K_M"]
    path.unlink()
    assert names(library) == []


def test_a_home_without_a_models_folder_has_no_models(tmp_path: Path) -> None:
    assert Library(tmp_path / "none").models() == []


def test_each_model_says_what_it_is(models: Path, library: Library) -> None:
    path = made.gguf(models / "tale-Q4_K_M.gguf")
    [model] = library.models()
    assert model.size_bytes == path.stat().st_size
    assert model.identity is not None and model.problem is None
    assert (model.identity.format, model.identity.quant) == ("gguf", "Q4_K")


def test_a_file_that_changed_is_looked_at_again(models: Path, library: Library) -> None:
    path = made.gguf(models / "m.gguf")
    assert library.models()[0].problem is None
    path.write_bytes(b"GGUF")
    assert library.models()[0].problem is not None


def test_a_split_set_is_one_model_with_the_size_of_all(models: Path, library: Library) -> None:
    parts = made.gguf_split(models / "org" / "big", "big-Q4_K_M", 3)
    [model] = library.models()
    assert (model.name, model.path) == ("org/big/big-Q4_K_M", parts[0])
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    parts[1].unlink()
    assert library.models()[0].problem == "1 of its parts are missing"


def test_a_folder_of_safetensors_is_one_model(models: Path, library: Library) -> None:
    made.hf_sharded(models / "org" / "st")
    [model] = library.models()
    assert (model.name, model.path) == ("org/st", models / "org" / "st")
    assert model.identity is not None and model.identity.loader == "torch"


def test_what_cannot_be_used_is_listed_with_the_reason(models: Path, library: Library) -> None:
    (models / "cut.gguf").write_bytes(b"GG")
    made.text(models / "p" / "config.json", made.CONFIG)
    made.text(models / "p" / "pytorch_model.bin", b"PK\x03\x04")
    problems = {model.name: model.problem or "" for model in library.models()}
    assert "ends after 2 bytes" in problems["cut"]
    assert "pickle" in problems["p"]


def test_vision_parts_and_hidden_folders_are_no_models(models: Path, library: Library) -> None:
    made.gguf(models / "mmproj-m-f16.gguf")
    made.gguf(models / ".cache" / "m.gguf")
    assert names(library) == []


def test_other_programs_folders_are_used_where_they_are(models: Path, tmp_path: Path) -> None:
    path = made.gguf(tmp_path / "lmstudio" / "org" / "repo" / "m-Q8_0.gguf", "q8_0")
    [model] = Library(models, [tmp_path / "lmstudio"]).models()
    assert (model.name, model.path, model.origin) == ("org/repo/m-Q8_0", path, "folder")
    assert list(models.iterdir()) == []


def test_text_generation_webuis_models_are_used_where_they_are(
    models: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "text-generation-webui" / "user_data" / "models"
    made.text(theirs / "place-your-models-here.txt", "")
    made.text(theirs / "config.yaml", "")
    made.gguf(theirs / "tale-Q4_K_M.gguf")
    made.gguf_split(theirs / "big", "big-Q4_K_M", 3)
    made.hf(theirs / "org_st")
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    library = Library(models, [theirs])
    assert names(library) == ["big/big-Q4_K_M", "org_st", "tale-Q4_K_M"]
    assert all(model.problem is None for model in library.models())
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before
    assert list(models.iterdir()) == []  # nothing was copied


def cache(tmp_path: Path) -> Path:
    """Hugging Face's cache with a GGUF and a set of safetensors."""
    root = tmp_path / "hub"
    for repo, commit in (("models--org--gg", "a" * 40), ("models--org--st", "b" * 40)):
        (root / repo / "blobs").mkdir(parents=True)
        (root / repo / "snapshots" / commit).mkdir(parents=True)
    blob = made.gguf(root / "models--org--gg" / "blobs" / "0123")
    link = root / "models--org--gg" / "snapshots" / ("a" * 40) / "m-Q4_K_M.gguf"
    link.symlink_to(blob)
    made.hf(root / "models--org--st" / "snapshots" / ("b" * 40))
    (root / "version.txt").write_text("1")
    return root


def test_hugging_faces_cache_is_read_through_its_links(models: Path, tmp_path: Path) -> None:
    root = cache(tmp_path)
    library = Library(models, hf_cache=root)
    assert names(library) == ["org/gg/m-Q4_K_M", "org/st"]
    assert all(model.problem is None for model in library.models())
    assert library.resolve("org/st") == root / "models--org--st" / "snapshots" / ("b" * 40)


def test_a_folder_that_links_to_itself_ends(models: Path, library: Library) -> None:
    made.gguf(models / "a" / "m.gguf")
    (models / "a" / "again").symlink_to(models / "a")
    assert names(library) == ["a/m"]


@pytest.mark.parametrize(
    "name",
    ["org/tale/tale-Q4_K_M", "ORG/Tale/tale-q4_k_m.gguf", "org/tale:Q4_K_M", "tale-Q4_K_M"],
)
def test_a_model_is_found_by_each_of_its_names(models: Path, library: Library, name: str) -> None:
    path = made.gguf(models / "org" / "tale" / "tale-Q4_K_M.gguf")
    made.gguf(models / "org" / "tale" / "tale-Q8_0.gguf", "q8_0")
    assert library.resolve(name) == path
    assert resolve(str(path), library) == path


def test_a_name_that_means_several_models_lists_them(models: Path, library: Library) -> None:
    made.gguf(models / "org" / "tale" / "tale-Q4_K_M.gguf")
    made.gguf(models / "org" / "tale" / "tale-Q8_0.gguf", "q8_0")
    with pytest.raises(InvalidRequestError, match="tale-Q8_0"):
        library.resolve("org/tale")


def test_an_unknown_name_gets_the_nearest(models: Path, library: Library) -> None:
    made.gguf(models / "kunoichi-Q4_K_M.gguf")
    with pytest.raises(NotFoundError, match="did you mean kunoichi-Q4_K_M"):
        library.resolve("kunoishi")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "../models", "/etc/passwd", "org", "*", "org/"]
)
def test_nothing_is_removed_by_a_name_that_is_none(
    models: Path, library: Library, name: str
) -> None:
    made.gguf(models / "org" / "a" / "m-Q4_K_M.gguf")
    made.gguf(models / "org" / "b" / "m-Q4_K_M.gguf")
    with pytest.raises((NotFoundError, InvalidRequestError)):
        library.remove(name)
    assert len(library.models()) == 2


def test_removing_a_split_set_takes_all_parts_and_nothing_else(
    models: Path, library: Library
) -> None:
    parts = made.gguf_split(models / "org" / "big", "big-Q4_K_M", 3)
    size = sum(part.stat().st_size for part in parts)
    kept = made.gguf(models / "org" / "big" / "big-Q8_0.gguf", "q8_0")
    assert library.remove("big-Q4_K_M") == size
    assert [path for path in models.rglob("*") if path.is_file()] == [kept]


def test_removing_the_last_model_of_a_folder_takes_the_folder_but_never_the_root(
    models: Path, library: Library
) -> None:
    made.hf(models / "org" / "st")
    library.remove("org/st")
    assert list(models.iterdir()) == []
    assert models.is_dir()


def test_removing_safetensors_keeps_a_gguf_that_lies_with_them(
    models: Path, library: Library
) -> None:
    made.hf(models / "both")
    kept = made.gguf(models / "both" / "m-Q4_K_M.gguf")
    library.remove("both")
    assert kept.exists() and not (models / "both" / "model.safetensors").exists()


def test_other_programs_models_are_never_removed(models: Path, tmp_path: Path) -> None:
    root = cache(tmp_path)
    library = Library(models, hf_cache=root)
    with pytest.raises(InvalidRequestError, match="another program"):
        library.remove("org/gg/m-Q4_K_M")
    other = made.gguf(tmp_path / "theirs" / "sub" / "m.gguf")
    os.symlink(tmp_path / "theirs", models / "linked")
    with pytest.raises(InvalidRequestError, match="another program"):
        library.remove("linked/sub/m")
    assert other.exists()


def test_a_linked_file_is_removed_as_a_link(models: Path, library: Library, tmp_path: Path) -> None:
    real = made.gguf(tmp_path / "real.gguf")
    (models / "m.gguf").symlink_to(real)
    library.remove("m")
    assert real.exists() and list(models.iterdir()) == []


def test_a_second_name_of_a_split_set_outlives_the_first(models: Path, library: Library) -> None:
    made.gguf_split(models, "m", 2)
    path = library.link(library.resolve("m"), "other/name")
    assert path == models / "other" / "name-00001-of-00002.gguf"
    library.remove("m")
    (kept,) = library.models()
    assert kept.name == "other/name" and kept.problem is None


def test_unfinished_downloads_are_shown_apart(models: Path, library: Library) -> None:
    part = models / "org" / "m" / "m.gguf.0123.part"
    made.text(part, b"x")
    assert library.unfinished() == [part]
    assert library.models() == []


def ollama(tmp_path: Path, digest: str | None = None) -> Path:
    """Ollama's store with one model, ``tale:7b``."""
    root = tmp_path / "ollama"
    blob = made.gguf(root / "blobs" / f"sha256-{'0' * 64}")
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "1" * 64},
        {
            "mediaType": "application/vnd.ollama.image.model",
            "digest": digest or f"sha256:{blob.name.removeprefix('sha256-')}",
        },
    ]
    made.text(root / "manifests/registry.ollama.ai/library/tale/7b", {"layers": layers})
    return root


def test_ollamas_models_are_used_where_they_are(models: Path, tmp_path: Path) -> None:
    library = Library(models, ollama=ollama(tmp_path))
    [model] = library.models()
    assert (model.name, model.origin, model.problem) == ("ollama/tale:7b", "ollama", None)
    with pytest.raises(InvalidRequestError, match="another program"):
        library.remove("ollama/tale:7b")


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:00", "md5:" + "0" * 64])
def test_a_manifest_that_points_elsewhere_names_no_model(
    models: Path, tmp_path: Path, digest: str
) -> None:
    assert Library(models, ollama=ollama(tmp_path, digest)).models() == []


def test_the_newest_model_of_the_folder_is_the_one_that_came_last(
    models: Path, library: Library
) -> None:
    assert library.newest() is None
    for age, name in enumerate(("b", "a", "c")):
        os.utime(made.gguf(models / f"{name}.gguf"), (1e9 - age, 1e9 - age))
    assert library.newest() == models / "b.gguf"
