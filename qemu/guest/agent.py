"""The lab's agent in the guest: runs commands and carries files for the host over a virtio serial port.

One JSON object per line, each followed by `size` raw bytes. Requests carry an `id` that every answer repeats:

    {"id": 1, "op": "ping"}
    {"id": 2, "op": "exec", "argv": [...], "env": {...}, "cwd": "/", "size": N}   N bytes of standard input
    {"id": 3, "op": "put", "path": "/x", "mode": 420, "size": N}                  N bytes of content
    {"id": 4, "op": "get", "path": "/x"}
    {"id": 5, "op": "kill", "target": 2}                                          end a running exec
    {"id": 6, "op": "poweroff"}

Answers: `{"id", "stream": "stdout"|"stderr", "size"}` while a command runs, and one last
`{"id", "done": true, ...}` with `code` (exec), `size` (get) or `error`. Started, it sends
`{"event": "ready", "release": "6.12..."}`. Standard library only; hba/lab/agent.py is the other end.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PORT_NAME = "hba.lab.agent"
CHUNK = 65536


def open_port(name):
    """The file descriptor of the virtio port called `name`; waits for it to appear."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for entry in Path("/sys/class/virtio-ports").glob("*/name"):
            if entry.read_text().strip() == name:
                return os.open(f"/dev/{entry.parent.name}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.1)
    sys.exit(f"agent: no virtio port called {name}")


class Port:
    """Lines and raw bytes over the port."""

    def __init__(self, fd):
        self._fd = fd
        self._received = b""
        self._lock = threading.Lock()

    def _more(self):
        data = os.read(self._fd, CHUNK)
        if not data:  # the host's end is closed: wait until somebody opens it again
            time.sleep(0.2)
        self._received += data

    def line(self):
        while b"\n" not in self._received:
            self._more()
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def payload(self, size):
        parts = []
        while size:
            if not self._received:
                self._more()
            part, self._received = self._received[:size], self._received[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send(self, message, payload=b""):
        data = memoryview(json.dumps(message).encode() + b"\n" + payload)
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]


class Agent:
    def __init__(self, port):
        self._port = port
        self._running = {}

    def serve(self):
        while True:
            request = self._port.line()
            payload = self._port.payload(request.get("size", 0))
            # A thread each, so that a long command holds up neither a ping nor a kill.
            threading.Thread(target=self._answer, args=(request, payload), daemon=True).start()

    def _answer(self, request, payload):
        try:
            extra, content = getattr(self, "do_" + request["op"])(request, payload)
        except Exception as error:
            extra, content = {"error": f"{type(error).__name__}: {error}"}, b""
        self._port.send({"id": request["id"], "done": True, **extra, "size": len(content)}, content)

    def do_ping(self, request, payload):
        return {}, b""

    def do_put(self, request, payload):
        path = Path(request["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
        path.chmod(request.get("mode", 0o644))
        return {}, b""

    def do_get(self, request, payload):
        return {}, Path(request["path"]).read_bytes()

    def do_kill(self, request, payload):
        child = self._running.get(request["target"])
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return {}, b""

    def do_poweroff(self, request, payload):
        os.sync()
        # The answer must be out before the machine is gone.
        threading.Timer(0.2, subprocess.call, [["busybox", "poweroff", "-f"]]).start()
        return {}, b""

    def do_exec(self, request, payload):
        child = subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **request.get("env", {})},
            cwd=request.get("cwd", "/root"),
            start_new_session=True,
        )
        self._running[request["id"]] = child
        feeder = threading.Thread(target=self._feed, args=(child.stdin, payload), daemon=True)
        feeder.start()
        streams = {child.stdout.fileno(): "stdout", child.stderr.fileno(): "stderr"}
        while streams:
            # A daemon the command left behind may hold its pipes open: once the command is gone, what is
            # there now is all there is.
            ready = select.select(list(streams), [], [], 0.5)[0]
            for fd in ready:
                data = os.read(fd, CHUNK)
                if data:
                    self._port.send({"id": request["id"], "stream": streams[fd], "size": len(data)}, data)
                else:
                    del streams[fd]
            if not ready and child.poll() is not None:
                break
        code = child.wait()
        del self._running[request["id"]]
        return {"code": code}, b""

    @staticmethod
    def _feed(pipe, payload):
        with contextlib.suppress(BrokenPipeError), pipe:
            pipe.write(payload)


def main():
    os.environ.setdefault("HOME", "/root")
    port = Port(open_port(PORT_NAME))
    port.send({"event": "ready", "release": os.uname().release})
    Agent(port).serve()


if __name__ == "__main__":
    main()
