"""The command line: ``python -m workbench COMMAND``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Command = Callable[[argparse.Namespace], int]

INTERRUPTED = 130
"""The exit status that a shell gives a command stopped by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a wrong value is one line on standard error."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workbench: stopped", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run-notebook",
        help="execute a notebook without a browser and write its report",
        description="Execute a notebook, write it and its HTML report, print its result.",
    )
    run.add_argument("notebook", type=Path)
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the notebook; may be repeated",
    )
    run.add_argument("--smoke", action="store_true", help="use the notebook's smoke parameters")
    run.add_argument(
        "--reports", type=Path, default=Path("reports"), help="folder for the results (%(default)s)"
    )
    run.add_argument("--working-folder", type=Path, help="where the notebook runs (its own folder)")
    run.set_defaults(command=_run_notebook)

    reproduce = commands.add_parser(
        "reproduce",
        help="reproduce a table or figure of the papers",
        description="Run a reproduction; what was interrupted goes on from its run folders.",
    )
    reproduce.add_argument("name", nargs="?", help="one of --list, or all")
    reproduce.add_argument("--list", action="store_true", help="say what there is, and how long")
    reproduce.add_argument(
        "--profile", default="smoke", help="smoke, laptop or paper (%(default)s)"
    )
    reproduce.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="set a parameter of the notebook; may be repeated",
    )  # fmt: skip
    reproduce.add_argument(
        "--reports", type=Path, default=Path("reports/paper"), help="for the results (%(default)s)"
    )
    reproduce.add_argument(
        "--working-folder", type=Path, default=Path(), help="where runs/ is (the present folder)"
    )
    reproduce.set_defaults(command=_reproduce)

    check = commands.add_parser(
        "check-notebooks",
        help="say which notebooks are not fit to be committed",
        description="Outputs, wrong parameter cells and invalid notebooks are reported.",
    )
    check.add_argument("folder", type=Path, nargs="?", default=Path("notebooks"))
    check.set_defaults(command=_check_notebooks)

    doctor = commands.add_parser(
        "doctor",
        help="say which testbeds this machine can run, and why not",
        description="Try out which testbeds can run here; nothing stays.",
    )
    doctor.set_defaults(command=_doctor)

    cleanup = commands.add_parser(
        "cleanup",
        help="take down what testbeds left behind whose notebook is gone",
        description="Take down what testbeds left behind; those still in use are left alone.",
    )
    cleanup.set_defaults(command=_cleanup)

    scenario = commands.add_parser(
        "scenario",
        help="write networks as session files of the CORE emulator",
        description="Write the shipped scenarios anew or, with --clients, one of your own.",
    )
    scenario.add_argument("--clients", type=int, help="number of clients of a scenario of your own")
    scenario.add_argument("--alpha", type=float, default=0.3, help="of the split (%(default)s)")
    scenario.add_argument("--seed", type=int, default=7, help="of split and links (%(default)s)")
    scenario.add_argument(
        "--tiers", default="", help="CSV file with a table of tiers (the paper's)"
    )
    scenario.add_argument(
        "--node", choices=["namespace", "docker"], default="namespace", help="what clients are"
    )
    scenario.add_argument("--image", default="", help="image of Docker nodes")
    scenario.add_argument(
        "--output", type=Path, help="the file; without --clients the folder (core_scenarios)"
    )
    scenario.set_defaults(command=_scenario)

    image = commands.add_parser(
        "image",
        help="build the image of client containers",
        description="Build the image that the clients of a DockerTestbed run.",
    )
    image.add_argument("--base", help="image to build on (python with this Python's version)")
    image.set_defaults(command=_image)
    return parser


def _run_notebook(options: argparse.Namespace) -> int:
    from workbench import notebooks  # noqa: PLC0415 - other commands need no Jupyter

    notebook = notebooks.read_notebook(options.notebook)
    texts = _named_texts(options.parameter)
    smoke = notebooks.smoke_parameters(notebook) if options.smoke else {}
    result = notebooks.run_notebook(
        options.notebook,
        parameters=smoke | notebooks.parse_parameters(notebook, texts),
        reports=options.reports,
        working_folder=options.working_folder,
    )
    minutes, seconds = divmod(round(result.duration_s), 60)
    lines = (
        result.summary,
        "",
        f"Report:      {_shown(result.report)}  (open it in any browser; no network needed)",
        f"Notebook:    {_shown(result.notebook)}",
        f"Took:        {minutes} min {seconds:02d} s",
        "Interactive: make lab",
    )
    print("\n".join(lines).lstrip("\n"))
    return 0


def _named_texts(given: Sequence[str]) -> dict[str, str]:
    texts = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--parameter is {text!r}, but must be NAME=VALUE")
        texts[name] = value
    return texts


def _reproduce(options: argparse.Namespace) -> int:
    from workbench.reproduction import runner  # noqa: PLC0415 - other commands need no Jupyter

    if options.list or options.name is None:
        print(runner.listing())
        return 0
    names = list(runner.entries()) if options.name == "all" else [options.name]
    for name in names:
        done = runner.reproduce(
            name,
            options.profile,
            parameters=_named_texts(options.parameter),
            output=options.reports,
            work=options.working_folder,
            say=print,
        )
        print(done.summary)
        print(f"Report:   {_shown(done.report)}")
        print(f"Result:   {_shown(done.result)}")
        print(f"Took:     {done.duration_s:.0f} s\n", flush=True)
    return 0


def _check_notebooks(options: argparse.Namespace) -> int:
    from workbench import notebooks  # noqa: PLC0415 - other commands need no Jupyter

    if not options.folder.is_dir():
        raise NotADirectoryError(f"there is no folder {options.folder}")
    found = notebooks.faults(options.folder)
    for line in found:
        print(line)
    return 1 if found else 0


def _doctor(_: argparse.Namespace) -> int:
    from workbench.doctor import doctor  # noqa: PLC0415 - other commands need no testbed

    print(doctor())
    return 0


def _cleanup(_: argparse.Namespace) -> int:
    from workbench.testbed.cleanup import cleanup  # noqa: PLC0415 - Linux only
    from workbench.testbed.containers import clean_containers  # noqa: PLC0415
    from workbench.testbed.core_remains import clean_sessions  # noqa: PLC0415

    found = [*clean_sessions(), *clean_containers(), *cleanup()]
    for leftover in found:
        print(f"{leftover.folder}: {leftover.outcome}")
    if not found:
        print("Nothing was left behind.")
    return 0


def _scenario(options: argparse.Namespace) -> int:
    from workbench import scenario_recipes  # noqa: PLC0415 - other commands need no fleet

    if options.clients is None:
        written = scenario_recipes.write_shipped(options.output)
    elif options.clients < 1:
        raise ValueError(f"--clients is {options.clients}, but must be at least 1")
    else:
        recipe = scenario_recipes.Recipe(
            options.clients, options.alpha, options.seed, tiers=options.tiers
        )
        path = options.output or Path(f"scenario-{options.clients}.xml")
        written = [scenario_recipes.write(recipe, path, options.node, options.image)]
    for path in written:
        print(_shown(path))
    return 0


def _image(options: argparse.Namespace) -> int:
    from workbench.testbed import image  # noqa: PLC0415 - other commands need no Docker

    print(f"Built {image.IMAGE}: {image.build_image(options.base or image.DEFAULT_BASE)}")
    return 0


def _shown(path: Path) -> Path:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    sys.exit(main())
