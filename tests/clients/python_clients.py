"""Third-party clients from PyPI against three nodes of this library on loopback: python_clients.py DQLITE_NODE LIBRARY_DIR.

Each layer of the stack has one test: it connects, writes and reads what it wrote. Wants the packages of python-requirements.txt.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version

import dqlitedbapi
import dqlitewire.messages as messages
from dqliteclient import ClusterClient, OperationalError, create_pool
from dqlitedbapi.aio import aconnect
from dqlitewire import MessageDecoder, MessageEncoder
from dqlitewire.constants import NodeRole
from sqlalchemy import Integer, LargeBinary, String, create_engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

NODES = 3
SECONDS = 60


class Nodes:
    """Processes of tests-c/dqlite-node.c; they end with this one, when their standard input does."""

    def __init__(self, program, library, folder):
        self.processes = []
        self.addresses = []
        for number in range(1, NODES + 1):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = "127.0.0.1:%d" % free.getsockname()[1]
            directory = os.path.join(folder, str(number))
            os.mkdir(directory)
            process = subprocess.Popen(
                [program, f"--id={number}", f"--address={address}", f"--bind={address}", f"--data-dir={directory}", "--stop-on-eof"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "LD_LIBRARY_PATH": library},
            )
            self.processes.append(process)
            self.addresses.append(address)
            assert process.stdout.readline() == "ready\n", f"node {number} does not start"

    def stop(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            assert process.wait(SECONDS) == 0


async def form_cluster(addresses):
    """dqlite-client's administration: the other nodes become voters."""
    cluster = ClusterClient.from_addresses(addresses)
    for number in range(2, NODES + 1):
        await cluster.add_node(number, addresses[number - 1], role=NodeRole.VOTER)
    members = {node.address: node.role for node in await cluster.cluster_info()}
    assert members == {address: NodeRole.VOTER for address in addresses}, members
    leader = await cluster.leader_info()
    assert leader.address == addresses[0], leader


def wire(leader):
    """dqlite-wire alone: its frames over a plain socket."""
    decoder = MessageDecoder(is_request=False)
    with socket.create_connection(leader, SECONDS) as connection:
        encoder = MessageEncoder()
        connection.sendall(encoder.encode_handshake() + encoder.encode(messages.ClientRequest(7)))

        def answer():
            while not decoder.has_message():
                received = connection.recv(65536)
                assert received, "the node has closed the connection"
                decoder.feed(received)
            return decoder.decode()

        def ask(request):
            connection.sendall(encoder.encode(request))
            return answer()

        assert isinstance(answer(), messages.WelcomeResponse)
        assert isinstance(ask(messages.OpenRequest("wire")), messages.DbResponse)
        ask(messages.ExecSqlRequest(0, "CREATE TABLE t(a INTEGER, b TEXT, c BLOB, d REAL)", []))
        written = ask(messages.ExecSqlRequest(0, "INSERT INTO t VALUES(?, ?, ?, ?)", [1 << 62, "text", b"\0\xff", 0.5]))
        assert (written.last_insert_id, written.rows_affected) == (1, 1), written
        rows = ask(messages.QuerySqlRequest(0, "SELECT * FROM t", []))
        assert list(rows.column_names) == ["a", "b", "c", "d"], rows
        assert [list(row) for row in rows.rows] == [[1 << 62, "text", b"\0\xff", 0.5]], rows
        refused = ask(messages.QuerySqlRequest(0, "SELECT nothing", []))
        assert isinstance(refused, messages.FailureResponse) and refused.code == 1, refused


async def client(addresses):
    """dqlite-client: a pool that finds the leader, transactions, a writer beside another, DUMP."""
    pool = await create_pool(addresses, database="client", max_size=4)
    async with pool.acquire() as connection:
        await connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)")
        async with connection.transaction():
            for number in range(1000):
                await connection.execute("INSERT INTO t VALUES(?, ?)", [number, "x" * 200])
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM t")
                await connection.execute("INSERT INTO missing VALUES(1)")
            raise AssertionError("a table that is missing takes rows")
        except OperationalError as error:
            assert "no such table: missing" in str(error), error
    await asyncio.gather(*(pool.execute("INSERT INTO t VALUES(?, ?)", [number, None]) for number in range(1000, 1050)))
    # More than one frame of rows.
    rows = await pool.fetchall("SELECT n, s FROM t ORDER BY n")
    assert rows == [[n, "x" * 200] for n in range(1000)] + [[n, None] for n in range(1000, 1050)], len(rows)
    await pool.close()
    files = await ClusterClient.from_addresses(addresses).dump("client")
    assert files["client"].startswith(b"SQLite format 3\0"), list(files)


def dbapi(address):
    """dqlite-dbapi, synchronous."""
    connection = dqlitedbapi.connect(address, database="dbapi")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT UNIQUE)")
    cursor.executemany("INSERT INTO t(s) VALUES(?)", [("one",), ("two",)])
    connection.commit()
    cursor.execute("INSERT INTO t(s) VALUES(?) RETURNING n", ("three",))
    assert cursor.fetchall() == [(3,)]
    try:
        cursor.execute("INSERT INTO t(s) VALUES('one')")
        raise AssertionError("a value that is there twice in a unique column")
    except dqlitedbapi.IntegrityError as error:
        assert "UNIQUE constraint failed: t.s" in str(error), error
    connection.rollback()
    cursor.execute("SELECT s FROM t ORDER BY n")
    assert [row[0] for row in cursor.fetchall()] == ["one", "two", "three"]
    connection.close()


async def dbapi_asynchronous(address):
    """dqlite-dbapi, asynchronous."""
    connection = await aconnect(address, database="dbapi")
    cursor = connection.cursor()
    await cursor.execute("SELECT count(*) FROM t WHERE s IN (?, ?)", ("two", "three"))
    assert await cursor.fetchone() == (2,)
    await connection.close()


class Base(DeclarativeBase):
    """Tables of the object-relational test."""


class Animal(Base):
    """One row."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    picture: Mapped[bytes | None] = mapped_column(LargeBinary)


def sqlalchemy(address):
    """sqlalchemy-dqlite: objects, reflection, an error that keeps its kind."""
    engine = create_engine(f"dqlite://{address}/animals")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Animal(name="cat", picture=b"\0" * 5000), Animal(name="dog")])
        session.commit()
    with Session(engine) as session:
        cat = session.scalars(select(Animal).where(Animal.name == "cat")).one()
        assert (cat.id, cat.picture) == (1, b"\0" * 5000)
        cat.name = "tiger"
        session.commit()
        assert session.scalars(select(Animal.name).order_by(Animal.id)).all() == ["tiger", "dog"]
        session.add(Animal(name="dog"))
        try:
            session.commit()
            raise AssertionError("two dogs")
        except IntegrityError:
            session.rollback()
    engine.dispose()


async def sqlalchemy_asynchronous(address):
    """sqlalchemy-dqlite, asynchronous."""
    engine = create_async_engine(f"dqlite+aio://{address}/animals")
    async with engine.begin() as connection:
        await connection.execute(Animal.__table__.insert(), [{"name": "cow"}, {"name": "hen"}])
        assert (await connection.execute(select(func.count()).select_from(Animal))).scalar_one() == 4
    await engine.dispose()


# conformance: client-protocol K25
def main():
    program, library = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(os.path.abspath(program), os.path.abspath(library), folder)
        asyncio.run(form_cluster(nodes.addresses))
        host, port = nodes.addresses[0].rsplit(":", 1)
        # A follower is asked first: the clients find the leader.
        follower = nodes.addresses[2]
        tests = [
            ("dqlite-wire", "frames over a plain socket", lambda: wire((host, int(port)))),
            ("dqlite-client", "pool, transactions, dump", lambda: asyncio.run(client(nodes.addresses))),
            ("dqlite-dbapi", "synchronous", lambda: dbapi(follower)),
            ("dqlite-dbapi", "asynchronous", lambda: asyncio.run(dbapi_asynchronous(follower))),
            ("sqlalchemy-dqlite", "synchronous", lambda: sqlalchemy(follower)),
            ("sqlalchemy-dqlite", "asynchronous", lambda: asyncio.run(sqlalchemy_asynchronous(follower))),
        ]
        for package, what, test in tests:
            test()
            print(f"{package} {version(package)}, {what}: passed", flush=True)
        nodes.stop()
    print(f"clients from PyPI, {NODES} nodes: {len(tests)} passed, 0 failed")


if __name__ == "__main__":
    main()
