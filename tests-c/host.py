"""A host in Python, through ctypes: two nodes, of which one dials the other by a function written in Python, rows over the wire protocol, and what the
library says of a wrong call. Takes the path of the library and an empty directory; prints what it sees (host.py.expected)."""

import ctypes
import os
import socket
import struct
import sys
import threading

library = ctypes.CDLL(sys.argv[1])
folder = sys.argv[2]

CONNECT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
library.dqlite_node_create.argtypes = [ctypes.c_ulonglong, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
library.dqlite_node_set_bind_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
library.dqlite_node_set_connect_func.argtypes = [ctypes.c_void_p, CONNECT, ctypes.c_void_p]
library.dqlite_node_errmsg.argtypes = [ctypes.c_void_p]
library.dqlite_node_errmsg.restype = ctypes.c_char_p
for name in ("start", "stop", "handover"):
    getattr(library, "dqlite_node_" + name).argtypes = [ctypes.c_void_p]
library.dqlite_node_destroy.argtypes = [ctypes.c_void_p]
library.dqlite_node_destroy.restype = None

# A wait that is longer is a fault.
PATIENCE_S = 30


def address(number):
    return f"\0odd-python-{os.getpid()}-{number}"


def text(value):
    """A text of the protocol: with its end, filled to words."""
    raw = value.encode() + b"\0"
    return raw + bytes(-len(raw) % 8)


class Client:
    def __init__(self, number):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address(number))
        self.socket.sendall(struct.pack("<Q", 1))

    def call(self, kind, body):
        """A request; the type and the body of the answer."""
        self.socket.sendall(struct.pack("<IBBH", len(body) // 8, kind, 0, 0) + body)
        words, kind, _, _ = struct.unpack("<IBBH", self.read(8))
        return kind, self.read(words * 8)

    def read(self, size):
        raw = b""
        while len(raw) < size:
            piece = self.socket.recv(size - len(raw))
            if not piece:
                raise EOFError("the node has closed the connection")
            raw += piece
        return raw


called = threading.Event()


@CONNECT
def connect(_argument, name, descriptor):
    """Dials for the library, on one of its threads."""
    try:
        dialled = socket.socket(socket.AF_UNIX)
        dialled.connect("\0" + name.decode()[1:])
        descriptor[0] = dialled.detach()
    except OSError:
        return 1
    called.set()
    return 0


def create(number):
    os.mkdir(f"{folder}/{number}")
    node = ctypes.c_void_p()
    bound = "@" + address(number)[1:]
    code = library.dqlite_node_create(number, bound.encode(), f"{folder}/{number}".encode(), ctypes.byref(node))
    print("create", code, "bind", library.dqlite_node_set_bind_address(node, bound.encode()),
          "connect", library.dqlite_node_set_connect_func(node, connect, None), "start", library.dqlite_node_start(node))
    return node


first, second = create(1), create(2)
client = Client(1)
print("leader", client.call(0, bytes(8))[1][8:].rstrip(b"\0").decode().replace(str(os.getpid()), "PID"))
print("open", client.call(3, text("test.db") + bytes(16))[0])
for sql in ("CREATE TABLE t(n INTEGER PRIMARY KEY, b)", "INSERT INTO t(b) VALUES('ä'), ('b')", "INSERT INTO nowhere VALUES(1)"):
    kind, body = client.call(8, struct.pack("<Q", 0) + text(sql))
    print("exec", kind, body[8:].rstrip(b"\0").decode() if kind == 0 else struct.unpack("<QQ", body))
print("add", client.call(12, struct.pack("<Q", 2) + text("@" + address(2)[1:]))[0])
print("assign", client.call(13, struct.pack("<QQ", 2, 0))[0])
print("connect was called:", called.wait(PATIENCE_S))
print("start again", library.dqlite_node_start(first), library.dqlite_node_errmsg(first).decode())
for node in (second, first):
    print("stop", library.dqlite_node_stop(node), library.dqlite_node_errmsg(node).decode())
    library.dqlite_node_destroy(node)
