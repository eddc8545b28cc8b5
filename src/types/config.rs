//! Every bound and default of the library by name. Nothing that waits, queues or buffers does so without one of these.

use std::time::Duration;

/// Bytes of a raft configuration that is read: as many as the metadata of a snapshot can hold. spec: disk-format 5.1.
pub const CONFIGURATION_MAX_BYTES: usize = 1024 * 1024;

/// Bytes in a page of every database. spec: state-machine 4.2.
pub const PAGE_SIZE: usize = 4096;

/// Longest database name in bytes. spec: client-protocol 11.1.
pub const DATABASE_NAME_MAX_BYTES: usize = 504;

/// Free pages in memory that are not given back to the system, at least.
pub const ARENA_KEPT_PAGES: u32 = 1024;

/// And one for so many pages in use.
pub const ARENA_KEPT_SHARE: u32 = 16;

/// Free pages of the page file that are not given back to the file system, at least.
pub const PAGE_FILE_KEPT_PAGES: u32 = 4096;

/// And one for so many pages in use.
pub const PAGE_FILE_KEPT_SHARE: u32 = 16;

/// Space of the file system that the page file leaves to log and snapshots: a transaction that would take it fails with 13.
pub const PAGE_FILE_RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// Free pages of it that are given back in one call, at most.
pub const PAGE_FILE_PUNCHED_PAGES: u32 = 2048;

/// Pages by which the page file grows until free space is looked at again.
pub const PAGE_FILE_GROWTH_PAGES: u32 = 256;

/// Pages that are read from the page file at once when all are read in order.
pub const SCAN_AHEAD_PAGES: usize = 32;

/// Bytes of the page file's pages that stay in memory in disk mode; the kernel's page cache stands behind it.
pub const PAGE_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of a transaction's rollback journal in memory in disk mode; a larger one goes to a file without a name.
pub const JOURNAL_MEMORY_MAX_BYTES: usize = 1024 * 1024;

/// Payload of an entry that goes to where pages lie as it is received or read at the start: all that have pages.
pub const PAYLOAD_STORED_MIN_BYTES: usize = PAGE_SIZE;

/// Time after which a page that found no space in the page file is written again.
pub const PAGE_FILE_RETRY: Duration = Duration::from_millis(500);

/// Bytes of a stored payload in memory at once while it is received, read, written or sent.
pub const PAYLOAD_WINDOW_BYTES: usize = 256 * 1024;

/// Heartbeat of a node whose latency was not set. spec: raft-wire 6.1.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Election timeout of a node whose latency was not set. spec: raft-wire 6.1.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(3000);

/// Entries applied since the last snapshot before the next is taken. spec: c-api 3.5.
pub const SNAPSHOT_THRESHOLD_ENTRIES: u64 = 1024;

/// Entries kept behind a snapshot. spec: c-api 3.5.
pub const SNAPSHOT_TRAILING_ENTRIES: u64 = 8192;

/// Where the host has set no threshold, a snapshot waits until as many bytes were logged as the databases have, at most
/// this many or `1 / SNAPSHOT_LOG_SHARE` of the databases, whichever is more.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Share of a large database that is logged before it is written anew.
pub const SNAPSHOT_LOG_SHARE: u64 = 8;

/// A log with more bytes than so many times the databases, and than `SNAPSHOT_LOG_BYTES_MIN`, is a reason for a snapshot however few
/// entries it has.
pub const SNAPSHOT_LOG_CONTENTS_MAX: u64 = 2;

/// Thresholds of entries after which a snapshot is taken however few bytes they are.
pub const SNAPSHOT_THRESHOLDS_MAX: u64 = 32;

/// Time after which a snapshot is asked for again that nobody has begun to take.
pub const SNAPSHOT_ASKED_AGAIN: Duration = Duration::from_secs(1);

/// Pages of a transaction for which memory beside their own is looked for at once; less than the 64 KiB from which on glibc tidies
/// up when memory is given back.
pub const HEAP_AHEAD_PAGES: usize = 15;

/// Shortest silence after which a leader is asked whether it is there, unless the election timeout is shorter.
pub const SILENCE_MIN: Duration = Duration::from_millis(300);

/// Longest wait for the answer of a leader that is asked whether it is there, unless a longer latency is set.
pub const CONFIRM_MAX: Duration = Duration::from_millis(100);

/// openraft's own lease of a leader, a year: what ends leadership is this library's.
pub const OPENRAFT_LEASE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Candidates that wait until the leader is asked whether it is there.
pub const QUESTIONS_MAX: usize = 64;

/// Whoever has granted a pre-vote leaves the election to the other for so long.
pub const CANDIDACY_YIELDS: Duration = Duration::from_millis(150);

/// How long a gap between two messages of a leader makes others of this length no reason for a question.
pub const GAP_KEPT: Duration = Duration::from_secs(60);

/// The same of a gap after which a leader was replaced that was there all the same.
pub const GAP_OF_REPLACED_KEPT: Duration = Duration::from_secs(600);

/// Gaps and pauses that are remembered, the longest and the latest.
pub const GAPS_MAX: usize = 16;

/// A timer that ends this much late or more tells that this node was not running.
pub const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Bytes of entries kept in memory, and on the disk to the next end of a segment, that the snapshot on disk covers; a follower that
/// needs older ones gets the snapshot.
pub const LOG_TRAILING_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Longest wait of the log for writers that were answered together and are expected to write again.
pub const GROUP_COMMIT_WINDOW: Duration = Duration::from_micros(500);

/// Proposals beyond which the log waits for no more.
pub const GROUP_COMMIT_PROPOSALS: usize = 32;

/// Batches that follow one which waited for more writers in vain, before more are waited for again.
pub const GROUP_COMMIT_PAUSE: usize = 100;

/// Length of a segment prepared ahead. spec: disk-format 4.3.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Segments prepared ahead and not yet written to. spec: disk-format 4.3.
pub const SEGMENTS_AHEAD: usize = 2;

/// Bytes of zeros in a segment ahead of its entries.
pub const ZEROS_AHEAD_BYTES: u64 = 1024 * 1024;

/// Bytes of a snapshot or of a segment's zeros that are handed to the disk at once.
pub const WRITTEN_OUT_AT_ONCE_BYTES: u64 = 256 * 1024;

/// The same of a snapshot that is received: entries that its node could log come behind it.
pub const RECEIVED_OUT_AT_ONCE_BYTES: u64 = 4 * 1024 * 1024;

/// Longest time that a snapshot gives way after such a piece; else as long as the piece took.
pub const SNAPSHOT_REST_MAX: Duration = Duration::from_millis(50);

/// Bytes of a removed file that are freed at once, in a commit of the file system of their own.
pub const ERASED_AT_ONCE_BYTES: u64 = 4 * 1024 * 1024;

/// Removed files that are freed bit by bit at once: each has a descriptor until then.
pub const ERASED_FILES_MAX: usize = 16;

/// Pause between two looks whether the data directory or its lock was removed.
pub const DIRECTORY_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often a directory is looked at whose names change meanwhile.
pub const SURVEYS_MAX: usize = 20;

/// Bytes of a sync, on average over a segment, from which on segments are allocated and not filled with zeros: a sync then
/// costs some 50 us more, and the log is written once, not twice.
pub const SYNC_BYTES_LARGE: u64 = 64 * 1024;

/// Full segments that wait for being closed; then writing waits, too.
pub const SEGMENTS_UNCLOSED_MAX: usize = 4;

/// Largest body of a client's message. Beyond it the connection is closed. spec: client-protocol 3.2.
pub const MESSAGE_BODY_MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Largest encoded entry, just below 2 GiB; a larger transaction gets SQLITE_FULL. spec: state-machine 1.3. Upstream's 1.18.7
/// commits one of 2000 MiB and not one of 2100: Linux writes no more than 2 GiB at once.
pub const ENTRY_MAX_BYTES: u64 = 32767 * 64 * 1024;

/// The same while the cluster has other members. Upstream's 1.18.7 closes the connection on a message with more than 500 MiB of
/// entries, each time that it is sent: as a voter it would keep the cluster from committing anything any more.
pub const ENTRY_TO_MEMBERS_MAX_BYTES: u64 = 480 * 1024 * 1024;

/// Proposed and not yet applied transactions of a node beyond which writers wait.
pub const IN_FLIGHT_TRANSACTIONS_MAX: usize = 1024;

/// Proposed and not yet applied bytes of a node beyond which writers wait.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Statements that run in SQLite at once, unless `dqlite_node_set_pool_thread_count` says otherwise.
pub const SQL_THREADS: usize = 4;

/// A statement that ran no longer than this the last time, or the time before, runs on the worker that serves its connection.
pub const SQL_SHORT: Duration = Duration::from_micros(300);

/// A statement that once took longer than this did not only wait for a processor: it is short no more.
pub const SQL_LONG: Duration = Duration::from_millis(10);

/// Time after which such a statement leaves the worker to others.
pub const SQL_ON_WORKER_MAX: Duration = Duration::from_millis(1);

/// Longest time after which it offers the worker again, since nobody may have come for it.
pub const SQL_WORKER_OFFERED_EVERY: Duration = Duration::from_millis(100);

/// One part in so many of the time between two offers is that in which somebody may come for the worker.
pub const SQL_WORKER_OFFER_SHARE: u32 = 50;

/// And at least this: a thread of the pool takes over a worker within it, if the machine is not busy.
pub const SQL_WORKER_HANDOVER: Duration = Duration::from_micros(100);

/// Virtual machine instructions of SQLite between two looks at what has ended.
pub const SQL_PROGRESS_INSTRUCTIONS: i32 = 1000;

/// Longest text whose compilation is taken for short.
pub const SQL_SHORT_TEXT_BYTES: usize = 16 * 1024;

/// Statements sent as text that a connection keeps compiled.
pub const KEPT_STATEMENTS_MAX: usize = 16;

/// Longest text of such a statement.
pub const KEPT_STATEMENT_MAX_BYTES: usize = 4096;

/// The first frame of rows ends after the row that reaches this. spec: client-protocol 4.5.
pub const ROWS_FRAME_BYTES: usize = 4096;

/// So do the others.
pub const ROWS_FURTHER_FRAME_BYTES: usize = 64 * 1024;

/// Pages of a DUMP written to the socket at once.
pub const DUMP_CHUNK_PAGES: usize = 64;

/// Longest message of rows whose room a connection keeps for the next one.
pub const MESSAGE_ROOM_KEPT_BYTES: usize = 4096;

/// Rows of RETURNING collected before the first is sent; beyond it they are sent as they come.
pub const RETURNING_COLLECTED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest time that requests go on when their client has closed its sending side and takes no bytes: it may still wait for the
/// answers.
pub const STATEMENT_WITHOUT_CLIENT_MAX: Duration = Duration::from_secs(10);

/// Longest time that a client which others wait for, since it holds the writer's turn, takes none of the bytes that it is sent
/// and acknowledges none.
pub const CLIENT_STALL_MAX: Duration = Duration::from_secs(10);

/// Longest time that a client's machine which owes acknowledgements lets nothing be heard of it: two probes of a window that the
/// client keeps closed, which the operating system sends up to 120 s apart.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(250);

/// Pause between two looks at that, which belong to the time that it takes.
pub const CLIENT_SILENCE_LOOK_EVERY: Duration = Duration::from_secs(10);

/// Bytes of old versions of pages that all readers of a node may keep while one of them is a client that does not take what it is
/// sent: as much as is kept in memory for a peer that installs a snapshot. Beyond it the client that has waited longest goes.
pub const PINNED_OLD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Pause between two looks whether a client has gone of which nothing more is read, and at what a client keeps that takes nothing.
pub const CLIENT_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of pages and of connections after whose end the C library's allocator is asked for what it keeps.
pub const MEMORY_GIVEN_BACK_BYTES: u64 = 8 * 1024 * 1024;

/// Memory in bytes that must be there for a start: some of what it takes ends the process if it is refused.
pub const START_MEMORY_BYTES: usize = 40 * 1024 * 1024;

/// Addresses in bytes that must be there beside what the threads of a start have taken: `START_MEMORY_BYTES`, and another thread, whose
/// stack (20 MiB) and arena of glibc's allocator (64 MiB) may come at any moment.
pub const START_ADDRESS_BYTES: usize = 128 * 1024 * 1024;

/// Addresses in bytes that must be there beside the stack of a thread that is made: the first that it takes ends the process if it is refused.
pub const THREAD_ADDRESS_BYTES: usize = 1024 * 1024;

/// Time after which a statement that was told to stop and is still inside SQLite leaves its permit to others.
pub const SQL_STOPS_WITHIN: Duration = Duration::from_secs(2);

/// Statements of a node that may go on so; those beyond keep their permits.
pub const SQL_BESIDE_MAX: usize = 16;

/// What a closed connection counts as.
pub const CONNECTION_RETURNED_BYTES: usize = 32 * 1024;

/// Pause before that: more may be ending.
pub const MEMORY_GIVEN_BACK_AFTER: Duration = Duration::from_secs(1);

/// Requests of a connection read ahead of the one that is worked on.
pub const REQUESTS_AHEAD: usize = 4;

/// Bytes of those requests. A larger one is begun when nothing is worked on.
pub const REQUESTS_AHEAD_MAX_BYTES: u64 = 1024 * 1024;

/// Bytes by which the buffer for a request grows; memory follows what was received.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;

/// Room for what is read at once, at first: small requests come whole.
pub const READ_MIN_BYTES: usize = 4096;

/// Room that is left is used as long as it is no less: more is made where the requests before may be gone, and their room with
/// them.
pub const READ_LEFT_BYTES: usize = 1024;

/// Stack of a thread that may be inside SQLite, which recurses over what clients write. Measured with SQLite 3.40.1 on x86-64:
/// LIKE and GLOB with 25,000 wildcards, as many as a pattern may have, 3.1 MiB; an expression of depth 1000 0.4 MiB, of BETWEEN 0.75;
/// JSON of depth 2000 0.2; FTS expressions 0.1; triggers that run, none. What SQLite does not bound, the constants below weigh:
/// the worst seen was 2.1 KiB a level (`x IN view`), 0.54 for views that only select from each other, and 32 bytes for two of text
/// (`+1`, while what is nested is expanded). So at most 10 MiB are needed, and there are twice as many.
pub const SQL_STACK_BYTES: usize = 20 * 1024 * 1024;

/// Stack that a level of nesting is taken to need: a view, a common table expression, a subquery, a trigger, a foreign key.
pub const NESTING_LEVEL_BYTES: u64 = 2048;

/// The same for a full-text table with rows of another one (`content=`). Seen: 20 MiB are used up between 5000 and 8000 that each have
/// those of the one before, so a level takes 2.6 to 4.2 KiB.
pub const NESTING_VIRTUAL_LEVEL_BYTES: u64 = 4352;

/// The same for a SELECT without parentheses and IN, which can only nest in another's FROM.
pub const NESTING_PLAIN_LEVEL_BYTES: u64 = 640;

/// Stack for each byte of text of what nests.
pub const NESTING_TEXT_BYTE_BYTES: u64 = 16;

/// The same for a level at most: its expressions have a depth of 1000.
pub const NESTING_TEXT_MAX_BYTES: u64 = 64 * 1024;

/// Stack that the nesting within one statement may need; beyond it the statement is refused.
pub const STATEMENT_NESTING_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Stack that views, triggers and foreign keys of a schema may need if each nests the next; beyond it none is made.
pub const SCHEMA_NESTING_MAX_BYTES: u64 = 6 * 1024 * 1024;

/// Threads that serve connections.
pub const SQL_WORKER_THREADS: usize = 2;

/// Threads for SQL that takes long, snapshots and connect callbacks.
pub const BLOCKING_THREADS_MAX: usize = 512;

/// Longest time that a stop waits for connections that are inside SQLite, before leadership, log and directory are given up
/// all the same.
pub const STOP_INSIDE_MAX: Duration = Duration::from_secs(5);

/// Longest time that a stop waits after that for those that are still inside SQLite; then it says that they are left.
pub const STOP_LEFT_MAX: Duration = Duration::from_secs(60);

/// The same for the host's connect function, if nobody is inside SQLite.
pub const STOP_CALLBACK_MAX: Duration = Duration::from_secs(10);

/// Longest time that a stop waits for a start or another stop under way on another thread of the host, and that a destroy waits for
/// calls that are inside the handle; what they use stays after that.
pub const CALL_BESIDE_MAX: Duration = Duration::from_secs(10);

/// Pause before a destroy looks again whether other threads of the host are inside the handle.
pub const DESTROY_LOOKS_EVERY: Duration = Duration::from_millis(5);

/// Longest time that a stop waits for consensus, which may wait for the disk.
pub const STOP_CONSENSUS_MAX: Duration = Duration::from_secs(5);

/// Longest time that a stop waits for connections and consensus together, which have bounds of their own: for when the thread that keeps
/// these is held up itself.
pub const STOP_CORE_MAX: Duration = Duration::from_secs(20);

/// Longest time that a stop waits for calls to the disk behind that.
pub const STOP_DISK_MAX: Duration = Duration::from_secs(5);

/// Longest time that a stop waits for other threads when some have not returned from the disk.
pub const STOP_REST_MAX: Duration = Duration::from_secs(1);

/// Pause after a write of the log, or a vote, that failed; doubled each time.
pub const DISK_RETRY_FIRST: Duration = Duration::from_millis(5);

/// Longest such pause.
pub const DISK_RETRY_MAX: Duration = Duration::from_millis(500);

/// Time that a leader's disk fails, or is full, before leadership goes to another node: a short want of space costs nothing.
pub const DISK_GRACE: Duration = Duration::from_millis(500);

/// Time that a leader's disk does not return from a call before leadership goes to another node.
pub const DISK_STALL: Duration = Duration::from_secs(1);

/// What a majority has must be on a leader's own disk so soon, or the disk counts as slow.
pub const DISK_SLOW_BY: Duration = Duration::from_millis(100);

/// Time for which it is slow before leadership goes to another node.
pub const DISK_SLOW_AFTER: Duration = Duration::from_secs(10);

/// Space that writes of clients leave: for what they had begun, for configurations, and for a new leader's own entry. A segment.
pub const DISK_RESERVE_BYTES: u64 = SEGMENT_BYTES;

/// Longest time that writes wait for space on the disk, all of them from when it was found full, before they are made all the
/// same and refused if there is none.
pub const DISK_FULL_WAIT: Duration = Duration::from_secs(1);

/// Pause before a write that waits for space looks again.
pub const DISK_FULL_LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Time after which a node hands its leadership over for its disk once more.
pub const DISK_HANDOVER_REST: Duration = Duration::from_secs(60);

/// Nodes that are asked to take over from a leader with a bad disk, before it falls silent.
pub const DISK_HANDOVER_TARGETS: usize = 2;

/// Longest time that proposals of several voters wait for a log that is busy: then they go to the others, whatever the own disk
/// does.
pub const GATHER_MAX: Duration = Duration::from_millis(5);

/// Bytes of entries that are sent to others and not on the own disk yet: beyond, proposals wait for it.
pub const UNFLUSHED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Longest time that a start waits for a lone voter to lead: on a full disk it leads when there is space.
pub const START_LEADING_MAX: Duration = Duration::from_secs(5);

/// Longest time that writes wait for the disk of a leader that stays: then they are answered that nobody knows.
pub const LOG_FAILING_MAX: Duration = Duration::from_secs(5);

/// Pause before whoever waits for a task of a runtime looks again whether that has lost its descriptors.
pub const RUNTIME_LOOKED_AT_EVERY: Duration = Duration::from_millis(500);

/// Pause between two looks at the descriptors of a node, which others may have closed.
pub const DESCRIPTORS_LOOKED_AT_EVERY: Duration = Duration::from_millis(500);

/// Longest time that a stop waits for a runtime of which others have closed descriptors, and then for the files; what has not ended
/// stays.
pub const STOP_LOST_MAX: Duration = Duration::from_secs(7);

/// Longest time that the first threads of SQL wait for the others before a start gives up.
pub const THREADS_START_MAX: Duration = Duration::from_secs(2);

/// Stack of the thread on which a call of the host is done.
pub const CALL_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Pause before a stop looks again whether it may take its VFS from a SQLite without mutexes.
pub const SQLITE_RETRY: Duration = Duration::from_millis(10);

/// Connections waiting to be accepted. spec: client-protocol 2.
pub const LISTEN_BACKLOG: u32 = 128;

/// Bytes of entries handed to one replication message at once; one entry may be larger.
pub const REPLICATION_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries handed to openraft at once. openraft reads that many messages without a pause, so it takes all or none.
pub const PROPOSAL_BATCH_ENTRIES_MAX: usize = 64;

/// Bytes of proposals handed to openraft at once; one proposal may be larger.
pub const PROPOSAL_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries handed to one replication message at once.
pub const REPLICATION_BATCH_ENTRIES_MAX: u64 = 1024;

/// Silence after a snapshot was sent whole, beside the time that this took and that of installing, after which it is sent again:
/// a C node that writes one of its own drops it without an answer. spec: raft-wire 5.2, 6.2.
pub const SNAPSHOT_RESEND_AFTER: Duration = Duration::from_secs(4);

/// Longest time to send a snapshot. spec: raft-wire 6.1.
pub const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(30_000);

/// Pause after a failed accept, such as for want of descriptors.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Descriptors held for connections between nodes and for files, for when clients have taken all others.
pub const SPARE_DESCRIPTORS: usize = 8;

/// Connections that have such descriptors at once and have not shown that they are a member's.
pub const SPARE_UNPROVED_MAX: usize = 4;

/// Longest wait of such a connection for showing it.
pub const SPARE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The same while others wait for its descriptor: peers speak at once.
pub const SPARE_WAIT_MIN: Duration = Duration::from_millis(100);

/// Pause in which a connection that has to go is closed.
pub const SPARE_CLOSE_PAUSE: Duration = Duration::from_millis(5);

/// Longest wait of the default connect function for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Voters that role management aims at unless the host says otherwise. spec: c-api 3.5.
pub const TARGET_VOTERS: i32 = 3;

/// Silence of a client's connection after which its machine is asked for a sign of life.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Pause between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Such questions without an answer after which the connection is given up.
pub const KEEPALIVE_QUESTIONS: u32 = 9;

/// The same pause for a client that holds the writer's turn.
pub const KEEPALIVE_INTERVAL_WITH_TURN: Duration = Duration::from_secs(1);

/// Longest wait of a client of other nodes for a connection; the host's connect function may block for seconds.
pub const CLIENT_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for another node's answer to one request. spec: client-protocol 15.3.
pub const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer taken from another node: a list of ten thousand members and more.
pub const CLIENT_ANSWER_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes kept of the text with which another node refuses.
pub const CLIENT_FAILURE_TEXT_MAX_BYTES: usize = 1024;

/// Pause before each look of a leader at the roles. spec: state-machine 6.1.
pub const ROLES_INTERVAL: Duration = Duration::from_millis(1000);

/// Longest wait of a look at the roles for connections; requests come on top. The host's connect function may have the
/// live members wait for the dead ones, five seconds each. spec: c-api 3.4.
pub const ROLES_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Members that are asked at once whether they are online.
pub const ROLES_POLLS_AT_ONCE: usize = 128;

/// Longest wait for a change of a role; a member that becomes voter gets the log first.
pub const ROLES_CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait of a handover for another node to lead.
pub const HANDOVER_TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait of a handover for knowing who leads.
pub const HANDOVER_LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait of a handover for connections to the members that it asks whether they are online.
pub const HANDOVER_DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait of a handover for each of its two changes of a role.
pub const HANDOVER_CHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause of a handover before it asks or looks again.
pub const HANDOVER_RETRY: Duration = Duration::from_millis(100);
/// Pause after a dial that failed. spec: raft-wire 1.2.
pub const DIAL_RETRY: Duration = Duration::from_millis(1000);

/// Messages that survive a failed dial: the newest. spec: raft-wire 1.2.
pub const DIAL_FAILED_KEEP: usize = 3;

/// A connection to a peer is closed when nothing was sent for so long.
pub const LINK_IDLE: Duration = Duration::from_secs(60);

/// Messages that wait to be sent to one peer.
pub const LINK_QUEUE_MESSAGES_MAX: usize = 1024;

/// Bytes that wait to be sent to one peer; one message may be larger.
pub const LINK_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Peers that are no members of the cluster and that are answered at once; members are always.
pub const STRANGER_LINKS_MAX: usize = 32;

/// The same as `LINK_IDLE` for whoever is no member.
pub const STRANGER_LINK_IDLE: Duration = Duration::from_secs(10);

/// Attempts at once to connect to members; the host's connect function may block a thread for seconds.
pub const MEMBER_DIALS_MAX: usize = 16;

/// The same to peers that are no members.
pub const STRANGER_DIALS_MAX: usize = 4;

/// Connections of one member to this node; beyond it the idlest is closed, never that on which its answers or a leader's
/// entries come.
pub const MEMBER_PLACES: usize = 4;

/// Connections of all peers that are no members, together; beyond it the idlest is closed.
pub const STRANGER_PLACES: usize = 64;

/// Bytes of a message that is not here whole which any connection may hold.
pub const UNFINISHED_FREE_BYTES: usize = 64 * 1024;

/// Bytes of such messages, of all peers but the leader that is followed; then those are not read.
pub const UNFINISHED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The same of that leader; one message at a time may be larger.
pub const LEADER_UNFINISHED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A message or a snapshot that has begun brings at least `DRIP_MIN_BYTES` in each such time after the first, or its connection
/// is closed.
pub const DRIP_WINDOW: Duration = Duration::from_secs(10);

/// See `DRIP_WINDOW`.
pub const DRIP_MIN_BYTES: u64 = 64 * 1024;

/// Payload of one received AppendEntries; upstream sends whatever it has in one message. spec: raft-wire 7.3.
pub const APPEND_PAYLOAD_MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes of a snapshot handed on at once.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Pieces of a snapshot between the connection and the disk.
pub const SNAPSHOT_CHUNKS_AHEAD: usize = 8;

/// Messages of a peer that are worked on at once; then its connection is not read.
pub const INBOUND_MESSAGES_MAX: usize = 64;

/// Fences to one peer that wait for their answers.
pub const FENCES_MAX: usize = 256;

/// Fences to one peer whose answers are believed, however late they come; the oldest are forgotten.
pub const FENCES_KEPT: usize = 512;

/// Pause between two fences that a member gets because it has made a new connection.
pub const FENCE_TO_CONNECTION_PAUSE: Duration = Duration::from_millis(20);

/// Appends to one peer that wait for their answers.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of appends to one peer that wait for their answers; one append may be larger.
pub const APPENDS_IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers of one peer that nobody has looked at yet.
pub const RESULTS_MAX: usize = 1024;

/// Longest time of one round in which a node is brought up to date. spec: raft-wire 8.2.
pub const CATCH_UP_ROUND_MAX: Duration = Duration::from_secs(50);

/// Longest wait for the entry of a new configuration to be committed; then the change may still be made.
pub const CHANGE_COMMIT_MAX: Duration = Duration::from_secs(60);

/// Longest wait for a snapshot that takes the place of entries that delete a database, before a node gets its first role.
pub const DELETIONS_BEHIND_MAX: Duration = Duration::from_secs(50);

/// Most such rounds. spec: raft-wire 8.2.
pub const CATCH_UP_ROUNDS_MAX: u32 = 100;

/// Longest wait for a sign of life of a leader whose connections have ended.
pub const FAILOVER_DIAL_TIMEOUT: Duration = Duration::from_millis(1000);

/// Shortest wait for a vote.
pub const VOTE_PATIENCE_MIN: Duration = Duration::from_millis(250);

/// A term more than this (2^32) above the own one comes from no election.
pub const TERM_STEP_MAX: u64 = 4_294_967_296;

/// First term that no message is believed to be of and that nobody stands in, 2^62: nothing that counts terms overflows.
pub const TERM_END: u64 = 4_611_686_018_427_387_904;

/// Shortest pause before the next attempt to replace a leader that is gone.
pub const FAILOVER_RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause before the next attempt.
pub const FAILOVER_RETRY_MAX: Duration = Duration::from_millis(400);

/// Wait for a majority to prove that this node leads, before the other voters are asked, too.
pub const READ_RESERVE_AFTER: Duration = Duration::from_millis(20);

/// Shortest wait for an answer of a peer, however short the election timeout is.
pub const PEER_PATIENCE_MIN: Duration = Duration::from_millis(1000);

/// A connection to a peer whose machine acknowledges nothing for so long is given up.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Silence of a peer's connection after which its machine is asked for a sign of life.
pub const PEER_KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Pause between two such questions.
pub const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A leader that keeps a new connection for so long is there.
pub const FAILOVER_KEEPS_CONNECTION: Duration = Duration::from_millis(100);

/// Pause before a leader that dropped a new connection is dialled again.
pub const FAILOVER_DIAL_PAUSE: Duration = Duration::from_millis(5);

/// Bytes of entries kept in memory for a peer that is installing a snapshot.
pub const LOG_WANTED_MAX_BYTES: usize = 256 * 1024 * 1024;

/// How long the entries behind a snapshot are kept after it was sent.
pub const SNAPSHOT_ENTRIES_KEPT: Duration = Duration::from_secs(10);

/// Longest `server-info` or `node-store` that is read: ten thousand members and more.
pub const SERVER_FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Addresses of `dqlite_server_set_auto_join` that are kept.
pub const SERVER_AUTO_JOIN_MAX: usize = 4096;

/// Longest wait of `dqlite_server_start` for a cluster that takes the server in.
pub const SERVER_JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait of `dqlite_server_start` for a leader, if the server is a member already: two elections. Then it runs on
/// without: the other members may be waiting for just this one.
pub const SERVER_LEADER_TIMEOUT: Duration = Duration::from_secs(12);

/// Longest wait of a server that makes a new cluster for a connection to its own address.
pub const SERVER_BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(5);

/// First pause before a server asks the members again for the leader; each further one is twice as long ...
pub const SERVER_RETRY_MIN: Duration = Duration::from_millis(100);

/// ... up to this.
pub const SERVER_RETRY_MAX: Duration = Duration::from_secs(2);

/// Members that a server asks at once who leads.
pub const SERVER_ASKS_AT_ONCE: usize = 16;

/// Longest wait for the vote of a server that has joined; the log comes first.
pub const SERVER_PROMOTE_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause before a running server asks for the members again. spec: c-api 4.4.
pub const SERVER_REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// Longest line that `LIBDQLITE_TRACE` asks for.
pub const TRACE_LINE_MAX_BYTES: usize = 4096;
