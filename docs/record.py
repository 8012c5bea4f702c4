"""Makes a picture (SVG) of a terminal in which commands were really run: their output, colours and all.

    python docs/record.py docs/images/apply.svg CLOUD.yaml "vmwright plan" "vmwright apply -y" [--width 104] [--title T]

Each command is run in the directory of the cloud's file, on a terminal of its own, so that what moves on a terminal
moves; the picture has what stands there at the end. It changes what the commands change: take a cloud meant for that.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"\x1b\[(?P<args>[?0-9;]*)(?P<kind>[A-Za-z])")


def run(argv: list[str], folder: Path, width: int) -> tuple[str, int]:
    """What a command writes to a terminal of that width, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(argv, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    chunks = []
    while chunk := _read(ours):
        chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode(errors="replace"), process.wait()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed (EIO)
        return b""


def settled(said: str) -> list[str]:
    """The lines that stand on the terminal at the end. Knows what rich's live display uses: up, clear, and back."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)", said):
        control = _CONTROL.fullmatch(part)
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control and control["kind"] == "A":
            row = max(0, row - int(control["args"] or 1))
        elif control and control["kind"] == "K":
            lines[row] = ""
        elif (control and control["kind"] == "m") or (not control and part != "\r"):
            lines[row] += part
    while lines and not re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]).strip():
        lines.pop()
    return lines


def alone(svg: str) -> str:
    """The picture without fonts from elsewhere: a page that shows it should not have to ask anybody for them."""
    return re.sub(r"\s*@font-face \{.*?\}", "", re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL), flags=re.DOTALL)


def command_line(words: list[str]) -> list[str]:
    """argv of a command: vmwright is the one of this checkout."""
    return [sys.executable, "-m", "vmwright.cli.main", *words[1:]] if words[0] == "vmwright" else words


def main() -> None:
    """Run, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("cloud", type=Path)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--width", type=int, default=104)
    parser.add_argument("--title", default="vmwright")
    chosen = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere:
        out = Console(record=True, width=chosen.width, file=nowhere, force_terminal=True, color_system="truecolor")
        for command in chosen.commands:
            words = shlex.split(command)
            said, code = run(command_line(words), chosen.cloud.resolve().parent, chosen.width)
            if code not in (0, 2):
                sys.exit(f"{command}: ended with {code}\n{said}")
            out.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            for line in settled(said):
                out.print(Text.from_ansi(line), soft_wrap=False)
            out.print()
        chosen.picture.write_text(alone(out.export_svg(title=chosen.title)), encoding="utf-8")
    print(f"wrote {chosen.picture}")


if __name__ == "__main__":
    main()
