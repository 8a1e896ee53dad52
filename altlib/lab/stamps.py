"""What the notebooks of a profile leave at their ends, and where its report lies."""

import json
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from altlib import store
from altlib.config import key
from altlib.lab.provenance import provenance
from altlib.profile import Profile


def report_folder(profile: Profile) -> Path:
    """Where the profile's tables, figures and results go."""
    return store.home() / "reports" / profile.name


def file_of(profile: Profile, notebook: str) -> Path:
    """The stamp of a notebook of a profile."""
    return store.home() / "artifacts" / "stamps" / profile.name / f"{notebook}.json"


def stamp(notebook: str, profile: Profile) -> Markdown:
    """Ends a notebook: writes down that it ran with a profile, and returns on what it stands, in a
    sentence."""
    content = {"notebook": notebook, "profile": key(profile)}
    if (shown := report_folder(profile)).exists():
        store.flush(shown)  # a stamp stands for the tables and figures, too
    store.write_json(file_of(profile, notebook), content)
    made = provenance()
    with_versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    changed = ", with changes since" if made["changed since"] else ""
    return Markdown(
        f"*Profile {profile.name} ({profile.data.words}), on "
        f"{made['date']}: {made['machine']}; {with_versions}; commit "
        f"{made['commit'][:10] or 'unknown'}{changed}.*"
    )


def read(path: Path) -> dict[str, Any]:
    """What a notebook left at its end; one that is damaged says that the notebook failed."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"notebook": path.stem, "failed": f"{path.name} is damaged; run it again"}


def failed_notebooks(profile: Profile) -> list[str]:
    """The notebooks of the profile that did not run to their end the last time, and why."""
    stamps = map(read, sorted(file_of(profile, "").parent.glob("*.json")))
    return [
        f"notebook {s['notebook']} ({s['failed'].rstrip('.')})" for s in stamps if "failed" in s
    ]
