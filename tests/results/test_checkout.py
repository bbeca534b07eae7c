"""The commit is git's own, and reading it starts nothing that a folder configures."""

import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.results.checkout import checked_out_commit, source_hash
from loopscope.results.origin import provenance


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a package in it."""
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    (root / "package" / "a.py").write_text("a = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def commit_of(package: Path) -> str | None:
    checked_out_commit.cache_clear()
    return checked_out_commit(package)


def test_a_branch_a_packed_one_a_bare_commit_and_a_work_tree_give_gits_own_answer(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert commit_of(checkout / "package") == head
    git(checkout, "pack-refs", "--all")
    assert not (checkout / ".git" / "refs" / "heads" / "main").exists()
    assert commit_of(checkout / "package") == head
    git(checkout, "worktree", "add", "-q", "-b", "other", "../tree")
    (checkout.parent / "tree" / "package" / "b.py").write_text("")
    git(checkout.parent / "tree", "add", ".")
    git(checkout.parent / "tree", "commit", "-qm", "two")
    other = git(checkout.parent / "tree", "rev-parse", "--short=12", "HEAD")
    assert commit_of(checkout.parent / "tree" / "package") == other != head
    git(checkout, "checkout", "-q", "--detach")
    assert commit_of(checkout / "package") == head


def test_a_package_outside_a_checkout_or_deeper_in_one_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    assert commit_of(tmp_path / "alone") is None
    (checkout / "package" / "deep").mkdir()
    assert commit_of(checkout / "package" / "deep") is None  # the site-packages of somebody's project, say


@pytest.mark.parametrize(
    "head", ["", "ref: ../../secret", "ref: refs/heads/../../../secret", "nonsense", "ref: refs/heads/none"]
)
def test_a_broken_head_is_no_commit_and_no_error(checkout: Path, head: str) -> None:
    (checkout / ".git" / "HEAD").write_text(head)
    assert commit_of(checkout / "package") is None


def test_a_record_starts_no_program_of_the_users_folder(tmp_path: Path) -> None:
    """A folder whose git settings name a program to start: in fa50153 a record there started it."""
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    ran = tmp_path / "ran"
    monitor = tmp_path / "monitor.sh"
    monitor.write_text(f"#!/bin/sh\ntouch {ran}\n")
    monitor.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(monitor))
    code = "from loopscope.results.origin import provenance; print(provenance().git)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert not ran.exists()
    subprocess.run(["git", "status"], cwd=tmp_path, check=True, capture_output=True)
    assert ran.exists(), "the trap works: git itself starts the program"


def test_the_source_hash_changes_with_names_and_contents(checkout: Path) -> None:
    def now() -> str:
        source_hash.cache_clear()
        return source_hash(checkout / "package")

    first = now()
    assert now() == first
    (checkout / "package" / "a.py").write_text("a = 2\n")
    changed = now()
    (checkout / "package" / "a.py").rename(checkout / "package" / "b.py")
    assert len({first, changed, now()}) == 3
    assert provenance().source is not None
