"""The command ``ibp`` (``interlocking-backprop``): train, eval and their like."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from interlocking_backprop.version import __version__

Command = Callable[[Sequence[str]], int]


def _train(arguments: Sequence[str]) -> int:
    from interlocking_backprop.cli.train import main

    return main(arguments)


def _eval(arguments: Sequence[str]) -> int:
    from interlocking_backprop.cli.evaluate import main

    return main(arguments)


def _compare(arguments: Sequence[str]) -> int:
    from interlocking_backprop.cli.compare import main

    return main(arguments)


def _generate(arguments: Sequence[str]) -> int:
    from interlocking_backprop.cli.generate import main

    return main(arguments)


def _bench(arguments: Sequence[str]) -> int:
    from interlocking_backprop.cli.bench import main

    return main(arguments)


# Imported when called: reading the data and training code takes seconds that `--help` should not.
COMMANDS: dict[str, tuple[str, Command]] = {
    "train": ("train a network cut into components with any scheme", _train),
    "eval": ("evaluate a run on the test set, every exit", _eval),
    "compare": ("train with several schemes and report accuracy, time and memory of each", _compare),
    "generate": ("write text with a trained Transformer, from any exit", _generate),
    "bench": ("measure the engine on emulated devices", _bench),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0, 1 if training failed, 2 for bad input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(__version__)
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        return fail(f"command {name!r} is not known; expected one of {', '.join(COMMANDS)}.")
    try:
        return COMMANDS[name][1](rest)
    except ValueError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted.", code=130)


def fail(message: str, code: int = 2) -> int:
    """Prints the one line that an error gets."""
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started one is enough to say it
        print(f"ibp: error: {message}", file=sys.stderr)
    return code


def _usage() -> str:
    commands = "\n".join(f"  {name:8} {text}" for name, (text, _) in COMMANDS.items())
    return f"usage: ibp COMMAND [FLAGS]\n\n{commands}\n\n`ibp COMMAND --help` lists the flags of a command."
