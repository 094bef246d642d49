"""A file system of a given size (tmpfs): it fills up as a disk does, and it can be made larger."""
import errno
import os
import shutil
import subprocess
import tempfile

MIB = 1 << 20


def missing():
    """Why this machine cannot mount one; None where it can."""
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    try:
        SmallDisk(1).close()
    except OSError as e:
        return str(e)
    return None


class SmallDisk:
    def __init__(self, mib):
        self.top = tempfile.mkdtemp(prefix="sluice-small-")
        self.path = os.path.join(self.top, "disk")
        os.mkdir(self.path)
        self._mount("-t", "tmpfs", "-o", "size=%dm" % mib, "sluice-test", self.path)

    def _mount(self, *words):
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(self.top, ignore_errors=True)
            raise OSError(done.stderr.strip())

    def resize(self, mib):
        subprocess.run(["mount", "-o", "remount,size=%dm" % mib, self.path], check=True)

    @property
    def free(self):
        st = os.statvfs(self.path)
        return st.f_bavail * st.f_frsize

    @property
    def used(self):
        st = os.statvfs(self.path)
        return (st.f_blocks - st.f_bfree) * st.f_frsize

    def fill(self, leave):
        """Someone else's file takes all but this many bytes, while others write."""
        with open(os.path.join(self.path, "someone-elses"), "wb") as f:
            while self.free > leave + 4096:
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size,
                                       self.free - leave)
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise

    def unfill(self):
        os.unlink(os.path.join(self.path, "someone-elses"))

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=False)
        shutil.rmtree(self.top, ignore_errors=True)
