"""The file system of the tests itself: a test of lost writes is worth what this is worth."""
import errno
import os
import random
import time

import pytest

import forget

NO = forget.missing()
pytestmark = pytest.mark.skipif(NO is not None, reason=str(NO))


@pytest.fixture
def folder():
    made = forget.ForgetFolder()
    yield made
    made.close()


def test_synced_bytes_stay_and_others_go(folder):
    path = os.path.join(folder.path, "f")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"a" * 5000)
    os.fsync(fd)
    os.write(fd, b"b" * 5000)
    os.pwrite(fd, b"X", 10)
    assert os.fstat(fd).st_size == 10000
    assert os.pread(fd, 3, 9) == b"aXa"
    os.close(fd)
    folder.forget()
    assert os.path.getsize(path) == 5000
    with open(path, "rb") as f:
        assert f.read() == b"a" * 5000


def test_a_file_never_synced_is_empty_and_its_name_stays(folder):
    with open(os.path.join(folder.path, "f"), "wb") as f:
        f.write(b"x" * 100)
    os.rename(os.path.join(folder.path, "f"), os.path.join(folder.path, "g"))
    folder.forget()
    assert os.listdir(folder.path) == ["g"]
    assert os.path.getsize(os.path.join(folder.path, "g")) == 0


def test_truncating_is_forgotten_too(folder):
    path = os.path.join(folder.path, "f")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"abc" * 4000)
    os.fdatasync(fd)
    os.ftruncate(fd, 7)
    os.ftruncate(fd, 9000)
    assert os.pread(fd, 9000, 0) == b"abcabca" + bytes(8993)
    os.close(fd)
    folder.forget()
    with open(path, "rb") as f:
        assert f.read() == b"abc" * 4000


def test_removed_files_leave_nothing_behind(folder):
    for _ in range(3):
        path = os.path.join(folder.path, "f")
        with open(path, "wb") as f:
            f.write(b"y" * 10000)
        os.unlink(path)
        with open(path, "wb"):
            pass
        assert os.path.getsize(path) == 0


def test_a_sync_hangs_once(folder):
    fd = os.open(os.path.join(folder.path, "f"), os.O_CREAT | os.O_RDWR)
    folder.fault("hang 5000")
    os.write(fd, b"a")
    for least, most in ((5, 60), (0, 5)):
        began = time.monotonic()
        os.fsync(fd)
        assert least <= time.monotonic() - began < most
    os.close(fd)


@pytest.mark.parametrize("what", ["write", "fsync"])
def test_calls_fail_until_healed(folder, what):
    path = os.path.join(folder.path, "f")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"kept")
    os.fsync(fd)
    folder.fault("fail " + what)
    with pytest.raises(OSError) as failed:
        os.write(fd, b"more")
        os.fsync(fd)
    assert failed.value.errno == errno.EIO
    folder.fault("heal")
    assert os.fstat(fd).st_size == 4, "what a failed sync should have kept is gone"
    os.pwrite(fd, b"again", 4)
    os.fsync(fd)
    os.close(fd)
    folder.forget()
    with open(path, "rb") as f:
        assert f.read() == b"keptagain"
    assert os.listdir(folder.path) == ["f"]


def test_an_unknown_fault_is_refused(folder):
    with pytest.raises(OSError):
        folder.fault("burn")


def test_against_a_model(folder):
    """Random writes, syncs and drops; two byte strings say what must be seen."""
    seed = random.randrange(1 << 30)
    draw = random.Random(seed)
    fd = os.open(os.path.join(folder.path, "f"), os.O_CREAT | os.O_RDWR)
    seen, kept = bytearray(), bytearray()
    for step in range(400):
        what = draw.random()
        if what < 0.7:
            at, body = draw.randrange(30_000), bytes([step % 255 + 1]) * draw.randrange(1, 9000)
            os.pwrite(fd, body, at)
            seen.extend(bytes(max(0, at + len(body) - len(seen))))
            seen[at:at + len(body)] = body
        elif what < 0.8:
            size = draw.randrange(40_000)
            os.ftruncate(fd, size)
            seen = seen[:size] + bytearray(max(0, size - len(seen)))
        elif what < 0.92:
            os.fdatasync(fd)
            kept = bytearray(seen)
        else:
            os.close(fd)
            folder.forget()
            fd = os.open(os.path.join(folder.path, "f"), os.O_RDWR)
            seen = bytearray(kept)
        assert os.pread(fd, 60_000, 0) == bytes(seen), "seed %d step %d" % (seed, step)
    os.close(fd)
