"""Authorities and certificates made for a test by openssl."""
import subprocess


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.cert, key = folder / (name + ".pem"), folder / (name + ".key")
        self.key = key
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-keyout", key, "-out", self.cert, "-days", "2",
                "-subj", "/CN=" + name, "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name):
        """(certificate, key) for a server on loopback or a client."""
        key, request = self.folder / (name + ".key"), self.folder / (name + ".csr")
        cert, more = self.folder / (name + ".pem"), self.folder / (name + ".ext")
        more.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n"
                        "extendedKeyUsage=serverAuth,clientAuth\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", key, "-out", request, "-subj", "/CN=" + name)
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key,
                "-CAcreateserial", "-days", "2", "-out", cert, "-extfile", more)
        return cert, key
