"""One migration, as every layout comes to."""

from dataclasses import dataclass
from pathlib import Path

from messagehub.errors import InvalidRequest
from messagehub.schema import scripts
from messagehub.schema.versions import SemanticVersion
from messagehub.schemas import SchemaUpdate

__all__ = ["Migration", "read_text", "refusal", "version_of_number"]


@dataclass(frozen=True, slots=True)
class Migration:
    """A version with its scripts; `path` is where it was read. No rollback script = no way back."""

    version: SemanticVersion
    description: str
    script: str
    rollback_script: str
    path: Path

    @property
    def checksum(self) -> str:
        """As the hub records it."""
        return scripts.checksum(self.script)

    def update(self, database: str, *, baseline: bool = False) -> SchemaUpdate:
        """The update that leads a database to this version."""
        return SchemaUpdate(
            version=str(self.version),
            script=self.script,
            rollback_script=self.rollback_script,
            description=self.description,
            database=database,
            baseline=baseline,
        )


def read_text(path: Path) -> str:
    """The text of a file; raises `InvalidRequest` if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise refusal(path, f"is not UTF-8: {failure}") from failure


def version_of_number(number: str) -> SemanticVersion:
    """The version of a numbered migration: its number comes first, `7` is `7.0.0`.

    So numbers and timestamps keep their order, and a range such as `>=7` means what it says.
    """
    return SemanticVersion(int(number), 0, 0)


def refusal(path: Path, why: str) -> InvalidRequest:
    """Why a file cannot be used."""
    return InvalidRequest(f"{path} {why}", fields={str(path): why})
