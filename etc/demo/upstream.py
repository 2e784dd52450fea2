#!/usr/bin/env python3
"""The demo upstream: an SMTP server that stores every message it gets.

usage: upstream.py PORT DIR

One file a message in DIR, N.eml: the bytes of DATA with CRLF kept and dot-stuffing undone; its
envelope beside it in N.json: {"reverse_path": ..., "forward_paths": [...]}.  Every local part
exists but `nobody`.  Both files are there before the 250.
"""
import asyncio
import json
import os
import re
import signal
import sys
import time

PATH = re.compile(rb"^(?:FROM|TO):\s*<([^>]*)>(.*)$", re.I)
LINE_MAX = 1 << 20


class Store:
    """Writes a message and its envelope, each whole or not at all."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        os.makedirs(folder, exist_ok=True)

    def keep(self, message, reverse_path, forward_paths):
        self.count += 1
        name = "%013d-%d-%06d" % (time.time() * 1000, os.getpid(), self.count)
        envelope = {"reverse_path": reverse_path, "forward_paths": forward_paths}
        self._write(name + ".eml", message)
        self._write(name + ".json", json.dumps(envelope).encode())
        return name

    def _write(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path + ".tmp", "wb") as f:
            f.write(data)
        os.rename(path + ".tmp", path)


class Session:
    """One client, command by command."""

    def __init__(self, reader, writer, store):
        self.reader, self.writer, self.store = reader, writer, store
        self.reverse_path, self.forward_paths = None, []

    def reply(self, line):
        self.writer.write(line.encode() + b"\r\n")

    async def run(self):
        self.reply("220 upstream.example.test ESMTP demo upstream")
        while True:
            line = await self.reader.readline()
            if not line:
                return
            verb, _, args = line.rstrip(b"\r\n").partition(b" ")
            command = getattr(self, "do_" + verb.decode("latin-1").lower(), None)
            if command is None:
                self.reply("500 5.5.2 Command not recognized")
            elif await command(args):
                return

    async def do_ehlo(self, _args):
        for word in ("upstream.example.test", "PIPELINING", "SIZE 104857600", "8BITMIME",
                     "SMTPUTF8"):
            self.reply("250-" + word)
        self.reply("250 ENHANCEDSTATUSCODES")

    async def do_helo(self, _args):
        self.reply("250 upstream.example.test")

    async def do_noop(self, _args):
        self.reply("250 2.0.0 Ok")

    async def do_rset(self, _args):
        self.reverse_path, self.forward_paths = None, []
        self.reply("250 2.0.0 Ok")

    async def do_quit(self, _args):
        self.reply("221 2.0.0 Bye")
        return True

    async def do_mail(self, args):
        m = PATH.match(args)
        if m is None or self.reverse_path is not None:
            self.reply("503 5.5.1 Bad MAIL command")
            return
        self.reverse_path, self.forward_paths = m[1].decode("utf-8", "replace"), []
        self.reply("250 2.1.0 Ok")

    async def do_rcpt(self, args):
        m = PATH.match(args)
        if m is None or self.reverse_path is None:
            self.reply("503 5.5.1 Bad RCPT command")
        elif m[1].lower().startswith(b"nobody@"):
            self.reply("550 5.1.1 No such user here")
        else:
            self.forward_paths.append(m[1].decode("utf-8", "replace"))
            self.reply("250 2.1.5 Ok")

    async def do_data(self, _args):
        if not self.forward_paths:
            self.reply("503 5.5.1 No valid recipients")
            return
        self.reply("354 End data with <CR><LF>.<CR><LF>")
        lines = []
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                return True
            lines.append(line[1:] if line.startswith(b".") else line)
        name = self.store.keep(b"".join(lines), self.reverse_path, self.forward_paths)
        self.reverse_path, self.forward_paths = None, []
        self.reply("250 2.0.0 Ok: stored as " + name)


async def main(port, folder):
    store = Store(folder)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)

    async def serve(reader, writer):
        try:
            await Session(reader, writer, store).run()
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client left, or sent a line over LINE_MAX: nothing was acknowledged
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=LINE_MAX, backlog=512)
    print("upstream ready", flush=True)
    await end.wait()
    server.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
