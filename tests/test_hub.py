"""Weights from the model hub: fetched, held against its digests, gone on with, and every refusal in plain words."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from hub import COMMIT, Hub, connected
from huggingface_hub import constants

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.models.cards import DEMO, MODELS, ModelCard, model_card
from geoovseg.models.weights import fetch_weights, local_weights, verify

Run = Callable[..., tuple[int, str, str]]
NAME = "ViT-B-16/openai"
CARD = MODELS[NAME]
CONTENT = bytes(range(256)) * 4000
DOCS = Path(__file__).parents[1] / "docs" / "offline.md"
ON_HUB = [card for card in MODELS.values() if card.repo]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the default model, and a cache of its own."""
    with connected(tmp_path / "hub", monkeypatch) as found:
        found.put(str(CARD.repo), CARD.files[0], CONTENT)
        yield found


def _left(folder: Path) -> list[str]:
    """Files in a cache that are no whole ones."""
    return [path.name for path in folder.rglob("*") if path.suffix in (".part", ".lock", ".incomplete")]


@pytest.mark.parametrize("card", ON_HUB, ids=lambda card: card.name)
def test_every_model_of_the_hub_is_fetched_and_is_as_the_hub_says(hub: Hub, card: ModelCard, tmp_path: Path) -> None:
    hub.files.clear()
    files = (card.files[-1], *card.also)  # the name that is not preferred, too
    for file in files:
        hub.put(str(card.repo), file, f"{card.name} {file}".encode() * 9)
    path = fetch_weights(card)
    assert path == local_weights(card)
    assert path.read_bytes() == f"{card.name} {files[0]}".encode() * 9
    assert verify(card) == (hashlib.sha256(path.read_bytes()).hexdigest(), True)
    commit, cache = card.revision or COMMIT, tmp_path / "hub"
    known = huggingface_hub.try_to_load_from_cache(str(card.repo), files[0], cache_dir=cache, revision=card.revision)
    assert known == str(path)
    assert path.parts[-len(Path(files[0]).parts) - 1] == commit
    assert not _left(tmp_path)


def test_a_commit_that_is_gone_is_told_and_the_newest_is_taken(hub: Hub, geoovseg: Run) -> None:
    hub.newest_only = True
    code, out, err = geoovseg("models", "fetch", NAME)
    assert (code, "no longer has its commit 977e3dd0ec55, so its newest is taken" in err) == (0, True), err
    assert COMMIT in out
    assert local_weights(CARD) == Path(out.strip())
    hub.newest_only = False
    assert "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d" in geoovseg("models", "fetch", NAME, "--force")[1]


def test_what_broke_off_is_gone_on_with(hub: Hub, tmp_path: Path, geoovseg: Run) -> None:
    hub.break_after = 300_000
    code, _, err = geoovseg("models", "fetch", NAME)
    assert (code, "The same command goes on where this one broke off" in err) == (1, True), err
    hub.break_after = None
    code, out, err = geoovseg("models", "fetch", NAME)
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == CONTENT
    assert [headers.get("Range") for _, path, headers in hub.asked if "/store/" in path] == [None, "bytes=300000-"]
    assert not _left(tmp_path)


def test_weights_that_are_not_as_published_are_fetched_again(hub: Hub, geoovseg: Run) -> None:
    path = fetch_weights(CARD)
    path.resolve().write_bytes(b"cut off")
    assert verify(CARD)[1] is False
    code, out, _ = geoovseg("models", "verify", NAME)
    assert (code, "NOT AS KNOWN: models fetch gets it again" in out) == (1, True)
    code, _, err = geoovseg("models", "fetch", NAME)
    assert (code, "is here, but is not as published: fetching it again" in err) == (0, True), err
    assert path.read_bytes() == CONTENT
    asked = len(hub.asked)
    assert geoovseg("models", "fetch", NAME)[0] == 0
    assert len(hub.asked) == asked  # what is whole is not fetched again
    assert geoovseg("models", "fetch", NAME, "--force")[0] == 0
    assert len(hub.asked) > asked


def test_a_file_that_cannot_be_loaded_says_how_to_get_another(hub: Hub, demo_scene: str, geoovseg: Run) -> None:
    fetch_weights(CARD)
    code, _, err = geoovseg("segment", demo_scene, "-c", "road", "--model", NAME, "-o", "x.tif")
    assert code == 1
    assert f"`geoovseg models fetch {NAME} --force` fetches it again" in err


def test_a_token_goes_to_the_hub_and_to_nobody_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_mine")
    fetch_weights(CARD)
    told = {path.split("/")[1]: headers.get("Authorization") for _, path, headers in hub.asked}
    assert told == {"timm": "Bearer hf_mine", "store": None}


FAILURES: dict[str, tuple[tuple[int, str], str]] = {
    "login": (
        (401, ""),
        "is private, or the token of this user is not valid; log in with `hf auth login`",
    ),
    "no such repository": ((404, "RepoNotFound"), "not there, or is private, or the token of this user is not valid"),
    "forbidden": ((403, ""), "this user (HF_TOKEN) may not read timm/"),
    "gated": ((403, "GatedRepo"), "is gated. Its licence (MIT (openai/CLIP)) must be accepted before a download"),
    "too many": ((429, ""), "too many requests; try again in a while, or log in (HF_TOKEN)"),
    "trouble": ((503, ""), "the server has trouble; try again in a while"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_refusal_says_why_and_what_to_do(hub: Hub, kind: str, geoovseg: Run, tmp_path: Path) -> None:
    hub.failure, said = FAILURES[kind]
    code, out, err = geoovseg("models", "fetch", NAME)
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
    assert "HTTPS_PROXY" not in err
    assert not list((tmp_path / "hub").rglob("*.*"))


def test_the_documentation_says_what_is_said(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, geoovseg: Run, tmp_path: Path
) -> None:
    """Each failure, as docs/offline.md has it; GEOOVSEG_WRITE_DOCS=1 writes it anew."""
    said = {}

    def fetch(kind: str) -> None:
        code, _, err = geoovseg("models", "fetch", NAME, "--quiet")
        assert code == 1
        shown = err.strip().replace(hub.url, "http://hub.example").replace("http://127.0.0.1:9", "http://hub.example")
        said[kind] = shown.replace(f"localhost:{hub.server_port}", "store.example")

    for kind, (failure, _) in FAILURES.items():
        hub.failure = failure
        fetch(kind)
    hub.failure, hub.page = None, True
    fetch("a login page in between")
    hub.page, hub.break_after = False, 300_000
    fetch("the connection breaks")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    fetch("no network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch("HF_HUB_OFFLINE=1")
    table = "\n".join(["```text", *(f"# {kind}\n{text}" for kind, text in said.items()), "```"])
    before, rest = DOCS.read_text().split("<!-- failures -->\n")
    if "GEOOVSEG_WRITE_DOCS" in os.environ:
        _, after = rest.split("<!-- /failures -->")
        DOCS.write_text(f"{before}<!-- failures -->\n{table}\n<!-- /failures -->{after}")
    assert f"<!-- failures -->\n{table}\n<!-- /failures -->" in DOCS.read_text()


def test_a_login_page_is_no_file(hub: Hub, geoovseg: Run) -> None:
    hub.page = True
    code, _, err = geoovseg("models", "fetch", NAME)
    assert code == 1
    assert "does not answer as the model hub does; is HF_ENDPOINT right, or a proxy between?" in err


def test_a_hub_without_the_file_is_told(hub: Hub) -> None:
    hub.files = {f"{CARD.repo}/README.md": b"nothing"}
    with pytest.raises(GeoOVSegError, match="has none of open_clip_model.safetensors, open_clip_pytorch_model.bin"):
        fetch_weights(CARD)


def test_no_network_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, geoovseg: Run) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = geoovseg("models", "fetch", NAME)
    assert (code, "is there a network? Behind a proxy set HTTPS_PROXY" in err) == (1, True), err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = geoovseg("models", "fetch", NAME)
    assert (code, "HF_HUB_OFFLINE forbids the network; unset it" in err) == (1, True), err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_that_is_not_trusted_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geoovseg: Run
) -> None:
    """As where a company opens connections; with its certificate in SSL_CERT_FILE it works."""
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {certificate}".split()
    subprocess.run([*made, *names], check=True, capture_output=True)
    hub.trust(key, certificate)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    code, _, err = geoovseg("models", "fetch", NAME)
    assert (code, "its certificate is not trusted here" in err, "set SSL_CERT_FILE" in err) == (1, True, True), err
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    code, _, err = geoovseg("models", "fetch", NAME)
    assert code == 0, err


def test_a_new_user_comes_from_nothing_to_labels(hub: Hub, demo_scene: str, tmp_path: Path, geoovseg: Run) -> None:
    """Weights are missing, the command that is named gets them, and the same run makes labels."""
    run = ("segment", demo_scene, "-c", "road,water", "--model", "MobileCLIP", "-o", tmp_path / "l.tif")
    hub.put("demo/demo", "open_clip_model.safetensors", Path(str(MODELS[DEMO].path)).read_bytes())
    card = ModelCard(name="MobileCLIP", arch="demo", repo="demo/demo", mean=MODELS[DEMO].mean, std=MODELS[DEMO].std)
    MODELS["MobileCLIP"] = card
    try:
        code, _, err = geoovseg(*run)
        assert (code, "`geoovseg models fetch MobileCLIP`" in err) == (5, True), err
        assert geoovseg("models", "fetch", "MobileCLIP", "--json")[0] == 0
        code, out, err = geoovseg(*run, "--json")
        assert code == 0, err
        assert json.loads(out)["model"] == "MobileCLIP"
    finally:
        del MODELS["MobileCLIP"]


def test_all_that_a_method_needs_is_fetched_by_its_name(
    hub: Hub, geoovseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [MODELS[name] for name in ("ViT-B-16/openai", "dino_vitb16")]
    for card in wanted:
        hub.put(str(card.repo), card.files[0], f"{card.name}".encode() * 20)
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", "nowhere")
    monkeypatch.setitem(MODELS, "sam_vit_b", replace(MODELS["sam_vit_b"], url=f"{hub.url}/store/x", sha256=None))
    said = geoovseg("methods", "trident")[1]
    assert "weights: ViT-B-16/openai 599 MB, sam_vit_b 375 MB, dino_vitb16 343 MB; 1317 MB in all" in said
    assert "geoovseg models fetch --method trident" in said
    code, out, err = geoovseg("models", "fetch", "--method", "resegclip", "--json")
    assert code == 1, err  # the store has no such file
    assert json.loads(out.splitlines()[0])["name"] == "ViT-B-16/openai"
    code, _, err = geoovseg("models", "fetch")
    assert (code, "name models to fetch" in err) == (2, True)


def test_a_file_of_openai_under_another_activation_is_warned_of() -> None:
    with pytest.warns(GeoOVSegWarning, match="which need ViT-B-16-quickgelu@ViT-B-16-openai.safetensors"):
        model_card("ViT-B-16@ViT-B-16-openai.safetensors")


def test_the_demo_model_is_as_it_was_packaged() -> None:
    assert verify(MODELS[DEMO])[1] is True
