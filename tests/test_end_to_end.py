"""The main job as a person runs it: a file in, a report out, opened in a browser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Browser

from gandissect.cli import main

DCGAN_LIKE = {
    "celeba32-began-massi": ("generator_began_celeba.pth", None),
    "celeba32-dcgan-fletcher": ("generator.pt", "discriminator.pt"),
    "cifar10-dcgan-sn-fstdrvr": ("dcgan.pt", None),
    "fashion-dcgan-aman": ("G.pth", "D.pth"),
    "mnist-dcgan-pritalb": ("dcgan_generator.pt", "dcgan_descriminator.pt"),
    "mnist-wgangp-akanametov": ("generator.pt", "critic.pt"),
}


def analyze(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.slow
@pytest.mark.parametrize("folder", DCGAN_LIKE)
def test_a_strangers_checkpoint_gives_a_full_report(folder: str, shared: Path, tmp_path: Path) -> None:
    generator, discriminator = DCGAN_LIKE[folder]
    place = shared / "checkpoints" / folder
    extra = ["--discriminator", str(place / discriminator)] if discriminator else []
    target = tmp_path / "r.html"
    assert analyze(str(place / generator), *extra, "-n", "200", "-q", "-o", str(target)) == 0
    report = json.loads(target.with_suffix(".json").read_text())
    skipped = [section["summary"] for section in report["sections"] if section["status"] == "skipped"]
    allowed = ("discriminator", "only vectors", "no concept covers", "real images", "no attention", "needs a condition",
               "turns pictures into pictures", "space of styles")  # fmt: skip
    assert [text for text in skipped if not any(word in text for word in allowed)] == []
    assert target.stat().st_size <= 25_000_000


@pytest.mark.slow
def test_the_demo_opens_in_a_browser_without_a_request_or_an_error(tmp_path: Path) -> None:
    found = Browser.find()
    if found is None:
        pytest.skip("no Chromium on this machine")
    target = tmp_path / "demo.html"
    command = [sys.executable, "-m", "gandissect", "demo", "-n", "200", "-q", "-o", str(target)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "2"})
    titles = [section["title"] for section in json.loads(target.with_suffix(".json").read_text())["sections"]]
    with found as browser:
        for javascript in (True, False):
            tab = browser.open(target, javascript=javascript)
            assert [address for address in tab.requests if not address.startswith(("data:", "file:", "about:"))] == []
            assert tab.console == []
            html = tab.html()
            assert [title for title in titles if title not in html.replace("&#39;", "'")] == []


@pytest.mark.slow
def test_the_demos_planted_concepts_are_found_and_caused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gandissect", "demo", "-a", "dissection", "-q", "-o", str(tmp_path / "r.json")]
    subprocess.run(command, check=True, cwd=tmp_path)
    sections = json.loads((tmp_path / "r.json").read_text())["sections"]
    said = " ".join(finding["text"] for section in sections for finding in section["findings"])
    assert "house" in said
    assert "sun" in said
