"""Generates the Python stubs from the contracts; the only generator.

The proto root `protos/` and the output root `clients/python/src/` hold the same paths, so the
generated imports are right without any rewriting. `--check` writes nothing and compares whole
trees, because `git diff` does not see a file that nobody added.
"""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
REPOSITORY = ROOT.parent
OUTPUT = REPOSITORY / "clients" / "python" / "src"
PACKAGES = ("messagehub/v1", "messagehub/storage/v1")
DOCSTRINGS = {
    "messagehub/v1": "Generated from `protos/messagehub/v1`: the public contract of the hub.",
    "messagehub/storage": "Private: the contract between the hub and its storage servers.",
    "messagehub/storage/v1": "Generated from `protos/messagehub/storage/v1`; not for services.",
}


def generate(target: Path) -> None:
    """Writes the stubs of every package below `target`, `*_pb2_grpc` for service files only."""
    protos = sorted(p for package in PACKAGES for p in (ROOT / package).glob("*.proto"))
    services = [p for p in protos if p.name.endswith("_service.proto")]
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={ROOT / 'third_party'}",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
    ]
    subprocess.run(
        [*protoc, f"--python_out={target}", f"--mypy_out=quiet:{target}", *map(str, protos)],
        check=True,
    )
    subprocess.run(
        [
            *protoc,
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out=quiet:{target}",
            *map(str, services),
        ],
        check=True,
    )
    for folder, docstring in DOCSTRINGS.items():
        (target / folder / "__init__.py").write_text(f'"""{docstring}"""\n')


def differences(fresh: Path, package: str) -> list[str]:
    """Names what is missing, left over or different in the committed stubs of `package`."""
    compared = filecmp.dircmp(fresh / package, OUTPUT / package, ignore=["__pycache__"])
    _, different, broken = filecmp.cmpfiles(
        fresh / package, OUTPUT / package, compared.common_files, shallow=False
    )
    return (
        [
            f"missing: {package}/{name}"
            for name in compared.left_only
            if name.endswith((".py", ".pyi"))
        ]
        + [f"left over: {package}/{name}" for name in compared.right_only if name != "v1"]
        + [f"different: {package}/{name}" for name in (*different, *broken)]
    )


def main() -> int:
    """Generates, or compares with `--check`; exit status 1 when the stubs are not fresh."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        if "--check" in sys.argv[1:]:
            found = [line for folder in DOCSTRINGS for line in differences(fresh, folder)]
            print(
                "\n".join([*found, "run `make proto` and commit"]) if found else "stubs are fresh"
            )
            return 1 if found else 0
        for package in PACKAGES:
            shutil.rmtree(OUTPUT / package, ignore_errors=True)
        shutil.copytree(fresh, OUTPUT, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
