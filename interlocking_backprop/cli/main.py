"""The command ``ibp`` (``interlocking-backprop``): train, eval and their like."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence

from interlocking_backprop.cli.failure import ended_by_ctrl_c, explanation, fail, interrupted
from interlocking_backprop.version import __version__

# By name: importing the data and training code takes seconds that `--help` should not.
COMMANDS = {
    "train": ("train a network cut into components with any scheme", "train:train"),
    "eval": ("evaluate a run on the test set, every exit", "evaluate:evaluate_run"),
    "compare": ("train with several schemes and report accuracy, time and memory of each", "compare:compare"),
    "generate": ("write text with a trained Transformer, from any exit", "generate:generate"),
    "bench": ("measure the engine on emulated devices", "bench:bench"),
}
"""What each command does, and the function in this folder that carries it out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0, 1 if training failed, 2 for bad input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(__version__)
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:8} {text}" for name, (text, _) in COMMANDS.items())
        print(f"usage: ibp COMMAND [FLAGS]\n\n{commands}\n\n`ibp COMMAND --help` lists the flags of a command.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        return fail(f"command {name!r} is not known; expected one of {', '.join(COMMANDS)}.")
    try:
        with ended_by_ctrl_c():
            command = pkgutil.resolve_name(f"{__package__}.{COMMANDS[name][1]}")
        code: int = command(rest)
        return code
    except KeyboardInterrupt:
        return interrupted()
    except Exception as error:
        text = explanation(error)
        if text is None:
            raise
        return fail(text)
