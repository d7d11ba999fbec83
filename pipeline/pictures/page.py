"""A scene as one HTML file that needs nothing else: pictures inside, a slider, a play button, no network."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_JPEG_QUALITY = 82

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0; background: #fff; color: #111; font: 14px/1.4 system-ui, sans-serif; }
header { padding: 8px 14px 0; }
h1 { font-size: 17px; margin: 0; }
p { margin: 2px 0 6px; color: #555; }
nav { position: sticky; top: 0; display: flex; gap: 12px; align-items: center; padding: 6px 14px; background: #fffd; }
nav input[type=range] { flex: 1; }
button { width: 5em; }
output { min-width: 8em; font-variant-numeric: tabular-nums; }
img { display: none; width: 100%; max-width: 1600px; margin: 0 auto; }
img.shown { display: block; }
</style>
</head>
<body>
<header><h1>$title</h1><p>$subtitle</p></header>
<nav>
<button id="play" type="button">Play</button>
<input id="slider" type="range" min="0" max="$last" value="0" aria-label="frame">
<output id="label"></output>
<label>speed <select id="speed"><option value="0.5">½×</option><option value="1" selected>1×</option>
<option value="2">2×</option><option value="4">4×</option></select></label>
</nav>
<main>
$images
</main>
<script>
"use strict";
const images = document.querySelectorAll("img");
const slider = document.getElementById("slider"), label = document.getElementById("label");
const play = document.getElementById("play"), speed = document.getElementById("speed");
let timer = null;
function show(number) {
  images.forEach((image, index) => image.classList.toggle("shown", index === number));
  slider.value = number;
  label.textContent = images[number].alt;
}
function step(by) { show((Number(slider.value) + by + images.length) % images.length); }
function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
function start() {
  clearInterval(timer);
  timer = setInterval(() => step(1), $milliseconds / Number(speed.value));
  play.textContent = "Pause";
}
slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
play.addEventListener("click", () => timer === null ? start() : stop());
speed.addEventListener("change", () => { if (timer !== null) start(); });
document.addEventListener("keydown", event => {
  if (event.target === slider || event.target === speed) return;
  if (event.key === "ArrowRight") { stop(); step(1); }
  if (event.key === "ArrowLeft") { stop(); step(-1); }
});
show(0);
</script>
</body>
</html>
""")


def page_frame(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (rows, cols, 3) as JPEG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return content.getvalue()


def write_page(
    path: Path, heading: tuple[str, str], frames: Sequence[tuple[str, bytes]], seconds_a_frame: float
) -> None:
    """Write the page.

    Args:
        path: the HTML file; its folder exists.
        heading: title and a line under it.
        frames: label and JPEG of each frame.
        seconds_a_frame: pace of the play button at 1×.
    """
    images = "\n".join(
        f'<img alt="{html.escape(label)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        for label, jpeg in frames
    )
    title, subtitle = map(html.escape, heading)
    page = _PAGE.substitute(
        title=title,
        subtitle=subtitle,
        images=images,
        last=len(frames) - 1,
        milliseconds=round(1000 * seconds_a_frame),
    )
    path.write_text(page, encoding="utf-8")
