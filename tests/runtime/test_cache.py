"""The disk cache: right content or a miss, whatever happens to the files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest

from tinycore.config import override
from tinycore.runtime.cache import HEADER, MAGIC, CacheWarning, DiskCache, open_cache

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX modes")


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "root", "kernels")


def entry(cache: DiskCache, key: str = KEY) -> Path:
    return cache.directory / key[:2] / f"{key}.entry"


def test_round_trip_and_statistics(cache: DiskCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, b"content")
    cache.put(OTHER, b"")
    assert cache.get(KEY) == b"content"
    assert cache.get(OTHER) == b""
    found = cache.stats()
    assert (found.hits, found.misses, found.writes, found.rejected, found.entries) == (2, 1, 2, 0, 2)
    assert found.bytes == 2 * HEADER.size + len(b"content")


def test_another_instance_and_another_namespace(cache: DiskCache) -> None:
    cache.put(KEY, b"content")
    assert DiskCache(cache.root, "kernels").get(KEY) == b"content"
    assert DiskCache(cache.root, "schedules").get(KEY) is None


def test_clear_removes_only_this_namespace(cache: DiskCache) -> None:
    other = DiskCache(cache.root, "schedules")
    cache.put(KEY, b"a")
    other.put(KEY, b"b")
    cache.clear()
    assert cache.get(KEY) is None
    assert cache.stats().entries == 0
    assert other.get(KEY) == b"b"


@pytest.mark.parametrize(
    "key", ["", "abc", "../../etc/passwd", "ABCDEF12", "0123/567", "g" * 16, "12345678\n"]
)
def test_keys_that_are_no_digests_are_refused(cache: DiskCache, key: str) -> None:
    with pytest.raises(ValueError, match="hex digest"):
        cache.get(key)
    with pytest.raises(ValueError, match="hex digest"):
        cache.put(key, b"")


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "Kernels", ".hidden"])
def test_namespaces_that_could_leave_the_root_are_refused(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        DiskCache(tmp_path, namespace)


def damage(data: bytes, kind: str) -> bytes:
    return {
        "empty": b"",
        "torn in the header": data[:20],
        "torn in the content": data[:-3],
        "longer": data + b"x",
        "bit flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "foreign": b"\x7fELF" + data[4:],
        "length lies": HEADER.pack(MAGIC, 1, data[16:48]) + data[48:],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["empty", "torn in the header", "torn in the content", "longer", "bit flipped", "foreign", "length lies"],
)
def test_a_damaged_entry_is_a_miss_is_removed_and_is_named(cache: DiskCache, kind: str) -> None:
    cache.put(KEY, b"content of a kernel")
    path = entry(cache)
    path.write_bytes(damage(path.read_bytes(), kind))
    with pytest.warns(CacheWarning, match=KEY):
        assert cache.get(KEY) is None
    assert not path.exists()
    assert cache.stats().rejected == 1
    cache.put(KEY, b"again")
    assert cache.get(KEY) == b"again"


def test_damage_is_reported_once(cache: DiskCache) -> None:
    for key in (KEY, OTHER):
        cache.put(key, b"content")
        entry(cache, key).write_bytes(b"nonsense")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert cache.get(KEY) is None
        assert cache.get(OTHER) is None
    assert len(seen) == 1
    assert cache.stats().rejected == 2


def test_an_entry_under_another_key_or_namespace_is_foreign(cache: DiskCache) -> None:
    cache.put(KEY, b"content")
    moved = entry(cache, OTHER)
    moved.parent.mkdir()
    moved.write_bytes(entry(cache).read_bytes())
    moved.chmod(0o600)
    with pytest.warns(CacheWarning, match="checksum"):
        assert cache.get(OTHER) is None
    schedules = DiskCache(cache.root, "schedules")
    schedules.put(KEY, b"")
    entry(schedules).write_bytes(entry(cache).read_bytes())
    with pytest.warns(CacheWarning, match="checksum"):
        assert schedules.get(KEY) is None


@posix_only
def test_an_entry_that_others_may_write_is_refused(cache: DiskCache) -> None:
    cache.put(KEY, b"content")
    entry(cache).chmod(0o666)
    with pytest.warns(CacheWarning, match="writable by other users"):
        assert cache.get(KEY) is None


@posix_only
def test_an_entry_that_is_a_link_is_not_followed(cache: DiskCache, tmp_path: Path) -> None:
    cache.put(KEY, b"content")
    elsewhere = tmp_path / "elsewhere"
    os.replace(entry(cache), elsewhere)
    entry(cache).symlink_to(elsewhere)
    with pytest.warns(CacheWarning, match="cannot read"):
        assert cache.get(KEY) is None
    assert elsewhere.exists()


@posix_only
def test_the_directories_are_private(cache: DiskCache) -> None:
    cache.put(KEY, b"content")
    for directory in (cache.root, cache.directory, entry(cache).parent):
        assert directory.stat().st_mode & 0o077 == 0
    assert entry(cache).stat().st_mode & 0o077 == 0


@posix_only
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    fix = "set TINYCORE_CACHE_DIR" if mode & 0o1000 else "run: chmod go-w"
    with pytest.warns(CacheWarning, match=fix):
        cache = DiskCache(root, "kernels")
    cache.put(KEY, b"content")
    assert cache.get(KEY) is None
    assert not cache.usable
    assert list(root.iterdir()) == []


@posix_only
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to give a directory away"
)
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    os.chown(root, 12345, 12345)
    with pytest.warns(CacheWarning, match="belongs to user 12345"):
        assert not DiskCache(root, "kernels").usable


def test_a_root_that_is_a_file_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("I am a file")
    with pytest.warns(CacheWarning, match="going on without") as seen:
        cache = DiskCache(tmp_path / "root", "kernels")
    assert len(seen) == 1
    cache.put(KEY, b"content")
    assert cache.get(KEY) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_warns_once_and_still_serves(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cache.put(KEY, b"content")
    attempts = 0

    original = os.open

    def failing(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal attempts
        if flags & os.O_CREAT:
            attempts += 1
            raise OSError(code, os.strerror(code))
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", failing)
    with pytest.warns(CacheWarning, match="going on without") as seen:
        cache.put(OTHER, b"more")
        cache.put(OTHER, b"more")
    assert len(seen) == 1
    assert attempts == 1
    assert cache.get(OTHER) is None
    assert cache.get(KEY) == b"content"


def test_a_write_that_fails_half_way_leaves_nothing(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.warns(CacheWarning, match="No space left"):
        cache.put(KEY, b"content")
    assert [path for path in cache.directory.rglob("*") if path.is_file()] == []


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "root", "kernels", limit=100_000)
    keys = [f"{number:04x}" for number in range(16)]
    now = time.time()
    for number, key in enumerate(keys[:9]):
        cache.put(key, bytes(10_000))
        os.utime(entry(cache, key), (now - 5000 + number, now - 5000 + number))
    assert cache.get(keys[0]) is not None  # renews its time
    for key in keys[9:12]:
        cache.put(key, bytes(10_000))
    left = {path.name.removesuffix(".entry") for path in cache.directory.rglob("*.entry")}
    assert keys[0] in left
    assert set(keys[9:12]) <= left
    assert keys[1] not in left
    assert keys[2] not in left
    assert cache.stats().bytes <= 100_000


def test_eviction_counts_all_namespaces_and_removes_old_partial_files(tmp_path: Path) -> None:
    old = DiskCache(tmp_path / "root", "schedules", limit=50_000)
    old.put(KEY, bytes(40_000))
    os.utime(entry(old), (1, 1))
    partial = entry(old).parent / "left-over.partial"
    partial.write_bytes(b"x")
    fresh = entry(old).parent / "being-written.partial"
    fresh.write_bytes(b"x")
    os.utime(partial, (1, 1))
    new = DiskCache(tmp_path / "root", "kernels", limit=50_000)
    new.put(OTHER, bytes(20_000))
    assert not entry(old).exists()
    assert entry(new, OTHER).exists()
    assert not partial.exists()
    assert fresh.exists()


def test_sweeps_are_amortised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path / "root", "kernels", limit=1_000_000)
    sweeps = 0
    original = DiskCache._sweep

    def counting(self: DiskCache) -> None:
        nonlocal sweeps
        sweeps += 1
        original(self)

    monkeypatch.setattr(DiskCache, "_sweep", counting)
    for number in range(100):
        cache.put(f"{number:04x}", bytes(1000))
    assert sweeps == 2  # the first write, and once in a sixteenth of the limit


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with override(cache=False):
        assert open_cache("kernels") is None
    with override(cache_directory=tmp_path / "mine", cache_bytes=7):
        cache = open_cache("kernels")
        assert cache is not None
        assert cache.root == tmp_path / "mine"
        assert cache.limit == 7
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        with override(cache_directory=None):
            assert DiskCache(None, "kernels").root == tmp_path / "xdg" / "tinycore"
        monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        with override(cache_directory=None):
            assert DiskCache(None, "kernels").root == tmp_path / "home" / ".cache" / "tinycore"


WRITER = """
import sys
from tinycore.runtime.cache import DiskCache
root, seed = sys.argv[1], int(sys.argv[2])
cache = DiskCache(root, "kernels", limit=400_000)
bad = 0
for turn in range(300):
    key = f"{(turn * 7 + seed) % 40:04x}"
    expected = key.encode() * (500 + int(key, 16) * 50)
    found = cache.get(key)
    bad += found is not None and found != expected
    cache.put(key, expected)
sys.exit(1 if bad or cache.stats().rejected else 0)
"""


def test_concurrent_processes_never_see_torn_entries(tmp_path: Path) -> None:
    """Four writers of the same 40 keys; the limit makes them delete each other's entries."""
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path / "root")]
    running = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]
    assert not list((tmp_path / "root").rglob("*.partial"))


def test_threads(cache: DiskCache) -> None:
    failures: list[bytes | None] = []

    def work(seed: int) -> None:
        for turn in range(200):
            key = f"{(turn + seed) % 20:04x}"
            cache.put(key, key.encode() * 100)
            found = cache.get(key)
            if found != key.encode() * 100:
                failures.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.stats().writes == 800


def test_importing_the_cache_imports_no_numpy() -> None:
    script = "import sys, tinycore.runtime.cache; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
