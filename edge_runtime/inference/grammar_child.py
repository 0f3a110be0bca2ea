"""The process that hears by a grammar: `python -m edge_runtime.inference.grammar_child`. pocketsphinx lives here.

The library holds the interpreter for as long as it searches, up to a second on a small board, and prints what it likes.
So it has a process of its own, which ends when its parent closes the channel.

A closed grammar answers something for whatever it hears, with full confidence. So each utterance is searched twice: by
the grammar, and by a free loop of phones, which hears anything. Speech that the grammar does not hold fits the loop far
better, or the grammar takes much of it for silence. Both are told, over the frames that the loop takes for speech.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.inference.grammar_words import GrammarWords, every_word, jsgf, known
from edge_runtime.process.child import parents_channel

RATE_HZ = 16_000
OWN_WORDS = {"xray": "EH K S R EY", "rescan": "R IY S K AE N", "juliett": "JH UW L IY EH T", "niner": "N AY N ER"}
LOOP = {"lw": 2.0, "beam": 1e-20, "pbeam": 1e-20}  # of the phone loop: its usual ones; wider ones heard the same
SILENCES = frozenset({"<sil>", "<s>", "</s>", "[NOISE]", "[SPEECH]", "++NOISE++", "SIL", "+NOISE+", "+SPN+"})
LEAST_SPEECH = 10  # frames of 10 ms
SCALE = 1024  # the library tells scores shifted by 10 bits
NICE = 5  # what decides about parts comes first


def main() -> None:
    os.nice(NICE)
    requests = parents_channel().makefile("rwb")
    decoders: tuple[Any, Any] | None = None
    while line := requests.readline():
        request = json.loads(line)
        pcm = requests.read(int(request.get("bytes", 0)))
        try:
            if request["do"] == "words":
                *both, left_out = _open(GrammarWords(**request["words"]))
                decoders = both[0], both[1]
                answer: dict[str, Any] = {"ready": True, "left_out": left_out}
            elif decoders is None:
                raise RuntimeError("no grammar was given")
            else:
                answer = {"id": request["id"], **_hear(*decoders, pcm)}
        except Exception as err:  # the outermost loop of this process; the parent turns it into a sentence
            answer = {"id": request.get("id"), "error": f"{type(err).__name__}: {str(err)[:300]}"}
        requests.write(json.dumps(answer).encode() + b"\n")
        requests.flush()


def _open(words: GrammarWords) -> tuple[Any, Any, list[str]]:
    """The grammar, the phone loop, and the phrases that the dictionary has no words for."""
    from pocketsphinx import Config, Decoder, get_model_path

    model = Path(get_model_path()) / "en-us"
    dictionary = _dictionary(model / "cmudict-en-us.dict")
    common = {"hmm": str(model / "en-us"), "samprate": float(RATE_HZ), "loglevel": "FATAL"}
    with tempfile.TemporaryDirectory(prefix="edge-grammar-") as folder:
        grammar, sounds = Path(folder, "station.gram"), Path(folder, "station.dict")
        grammar.write_text(jsgf(words, dictionary))
        sounds.write_text("".join(_entries(dictionary, every_word(words, dictionary))))
        by_grammar = Decoder(Config(jsgf=str(grammar), dict=str(sounds), **common))
    loop = Decoder(Config(allphone=str(model / "en-us-phone.lm.bin"), **LOOP, **common))
    return by_grammar, loop, sorted(set(words.phrases) - set(known(words.phrases, dictionary)))


def _hear(by_grammar: Any, loop: Any, pcm: bytes) -> dict[str, Any]:
    """Text, and what tells whether it was said: `margin` in nats, `silence` and `unheard` as shares."""
    began = time.perf_counter()
    held = _search(by_grammar, pcm)
    free = _search(loop, pcm) if held.text else held
    frames = by_grammar.n_frames()
    speech = max(frames - free.silence, LEAST_SPEECH)
    return {
        "text": held.text,
        "margin": SCALE * (held.score - free.score) / speech,
        "silence": (held.silence - free.silence) / speech,
        "unheard": (frames - 1 - held.end) / max(frames, 1),
        "ms": (time.perf_counter() - began) * 1e3,
    }


class _Found(NamedTuple):
    text: str
    score: float  # natural log, over SCALE
    silence: int  # frames
    end: int  # the last frame that it explains


def _search(decoder: Any, pcm: bytes) -> _Found:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    if found is None or not found.hypstr:
        return _Found("", 0.0, 0, 0)
    pieces = list(decoder.seg())
    silence = sum(piece.end_frame - piece.start_frame + 1 for piece in pieces if piece.word in SILENCES)
    text = " ".join(re.sub(r"\(\d+\)", "", found.hypstr).split())
    return _Found(text, math.log(max(found.best_score, 1e-300)), silence, max(piece.end_frame for piece in pieces))


def _dictionary(file: Path) -> dict[str, list[str]]:
    """word -> pronunciations."""
    found: dict[str, list[str]] = {word: [sounds] for word, sounds in OWN_WORDS.items()}
    for line in file.read_text("utf-8").splitlines():
        word, _, sounds = line.partition(" ")
        found.setdefault(re.sub(r"\(\d+\)$", "", word), []).append(sounds.strip())
    return found


def _entries(dictionary: dict[str, list[str]], words: set[str]) -> list[str]:
    return [
        f"{word}{f'({number})' if number > 1 else ''} {sounds}\n"
        for word in sorted(words)
        for number, sounds in enumerate(dictionary[word], 1)
    ]


if __name__ == "__main__":
    main()
