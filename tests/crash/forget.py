"""A folder on the file system that forgets what was never synced (forgetfs.c)."""
import os
import shutil
import signal
import subprocess
import tempfile

from node import BIN, eventually

FORGETFS = os.path.join(BIN, "tests", "crash", "forgetfs")


def missing():
    """Why this machine cannot mount it; None where it can."""
    if not os.path.exists(FORGETFS):
        return "forgetfs is not built"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    try:
        ForgetFolder().close()
    except OSError as e:
        return str(e)
    return None


class ForgetFolder:
    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="sluice-forget-")
        self.backing = os.path.join(self.top, "backing")
        self.path = os.path.join(self.top, "seen")
        os.mkdir(self.backing)
        os.mkdir(self.path)
        with open(os.path.join(self.top, "log"), "wb") as log:
            self.process = subprocess.Popen([FORGETFS, self.backing, self.path],
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(lambda: os.path.ismount(self.path) or self.process.poll() is not None)
        if not os.path.ismount(self.path):
            with open(os.path.join(self.top, "log"), errors="replace") as log:
                why = log.read()
            self.close()
            raise OSError("cannot mount: " + why)

    def forget(self):
        """Drops what was written and not synced. Who wrote it must be dead."""
        self.process.send_signal(signal.SIGUSR1)
        os.stat(self.path)  # the signal acts before the next request

    def fault(self, line):
        """hang MS, fail fsync, fail write, heal: see forgetfs.c."""
        fd = os.open(os.path.join(self.path, ".fault"), os.O_WRONLY)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.path.ismount(self.path):
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=False)
        shutil.rmtree(self.top, ignore_errors=True)
