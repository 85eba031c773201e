"""Every bound, in one place. Sizes are in bytes and times in seconds unless the name says otherwise.

Each number names the precedent it was taken from, so that a change can be argued with.
"""

from typing import Final

# --- the wire ---------------------------------------------------------------------------------

MAX_LINE: Final = 8192
"""One line as a sender may write it, line end left out. IRCv3 allows 8,191 bytes of tags before a line."""

MAX_NAME_CHARACTERS: Final = 32
"""A user name. Linux account names have 32 (useradd(8)); IRC networks grant 9 to 30."""

MAX_DELIVERY: Final = 3 * MAX_LINE + 4 * MAX_NAME_CHARACTERS + len(": ")
"""One line as a receiver may see it: a name before it, and each byte made safe by at most three."""

MAX_RECORD: Final = 4 * MAX_LINE
"""A record between two ends that both announce it. A text of `MAX_LINE` may take three times as much in JSON."""

MAX_FILE_NAME: Final = 255
"""One path component: NAME_MAX of Linux, macOS and NTFS."""

MAX_NUMBER: Final = 2**63 - 1
"""Any number in a record: the largest off_t."""

MAX_SAID: Final = 2**48
"""Lines that a client can have said when it comes back: with what it says then a double is still exact."""

MIN_PORT: Final = 1024
"""Ports below are privileged; no peer is sent to one (curl's CVE-2020-8284 shows why)."""

MAX_PORT: Final = 65535
"""The largest TCP port."""

# --- the server -------------------------------------------------------------------------------

MAX_CONNECTIONS: Final = 16_384
"""Connections at once, each a descriptor; NATS accepts 65,536, ngIRCd is built for fewer."""

MAX_NEWCOMERS: Final = 8192
"""Connections that have said nothing yet: half of all. With more, who has been silent longest has to go."""

TURNED_OUT: Final = 64
"""Of those that have said nothing yet, the ones that go when there is no descriptor left to accept another."""

MAX_FROM_ONE_NETWORK: Final = 256
"""Connections from one address, or one /64 of IPv6, this machine's own excepted: a hall full of people behind one
router. ngIRCd grants 5, NATS any number."""

HIGH_WATERMARK: Final = 1024 * 1024
"""What may wait for one slow consumer before it is dropped. Redis drops a subscriber at 8 MiB for a minute."""

MIN_HIGH_WATERMARK: Final = 256 * 1024
"""The least that a server may be told to grant: two pieces of a flood, so that being late once drops nobody."""

MEMBER_RATE: Final = 64 * 1024
"""Bytes a second that a member off this machine may say for long: a hundred times what a person types, and pastes fit
into the burst."""

MIN_MEMBER_RATE: Final = 1024
"""The least that a server may be told to let members say: a line of usual length each second."""

BURST_SECONDS: Final = 4
"""As much as in so many seconds it may say at once, after a silence."""

LINE_COST: Final = 64
"""Bytes that each line counts for more than it has: a short one costs all others as much as a long one."""

RECEIVE_SIZE: Final = 64 * 1024
"""Read from one connection in one turn of the loop, so that nobody's flood keeps others waiting."""

RECEIVE_SIZE_OF_RECORDS: Final = 4 * 1024
"""The same from one that has not said anything yet, or has just sent records: to decode one costs as much as some
eighty lines of text, even if it is of no known kind."""

RECORDS_PER_TURN: Final = 16
"""Handled of one client before the others have a turn; each may cost as much as a hundred messages."""

LOW_WATERMARK: Final = HIGH_WATERMARK // 4
"""More than this waiting for a member, and it is behind."""

MAX_PASS: Final = 8 * 1024 * 1024
"""Of a flood, handed out to all members together before others have a turn: some milliseconds of copying."""

MAX_PIECE: Final = 128 * 1024
"""Of a flood, added to the room at once, names included; well below what drops a member, above a usual block."""

MIN_PIECE: Final = 40 * 1024
"""The same with very many members, each of whom costs as much as the copying of so much; half of a usual block."""

STEADY_RATE: Final = 400 * 1024
"""Bytes a second that a member may say, names included, without being part of a flood."""

CATCH_UP_SECONDS: Final = 0.1
"""Granted to those who are behind before each such piece. Who reads 1.3 MB/s loses nothing to any flood; who does not
read at all holds up floods by this much a piece, and nothing else, until its own bound is reached."""

TAIL_LINES: Final = 2048
"""Of each room, kept in memory for those who come back."""

MAX_TAIL: Final = 4 * 1024 * 1024
"""The bytes of these, if they are long."""

MAX_TAILS: Final = 64 * 1024 * 1024
"""The same for all rooms together: each has as much as any other."""

CATCH_UP_SIZE: Final = 256 * 1024
"""Of what somebody missed, sent before looking whether it is read: as much as makes nobody a slow consumer."""

MAX_SPEAKERS: Final = 65_536
"""Of all rooms, those of whom it is known how much they have said; past that who was silent longest is forgotten."""

MAX_UNKEPT: Final = 4 * 1024 * 1024
"""Bytes of all rooms together that were said and have no place yet, because the disk or a network is slow, before
whoever says more has to wait."""

PLACED_AT_ONCE: Final = MAX_PIECE
"""Of these, written in one step, and told to the members in another."""

WRITE_PATIENCE: Final = 0.002
"""For such a step, before members are handed what was written before it: a slow disk does not hold that up."""

CHECKPOINT_SIZE: Final = 4 * 1024 * 1024
"""Of SQLite's journal, before a thread moves it to its place in the file. SQLite does so at 1,000 pages."""

COMMIT_COST: Final = 32 * 1024
"""Of it, taken by each commit besides what it is about: two pages."""

MAX_JOURNAL: Final = 64 * 1024 * 1024
"""Of it, before commits have to wait until it is empty."""

WRITTEN_AT_ONCE: Final = 1000
"""The same in number."""

LOG_RETRY_SECONDS: Final = 1.0
"""Before what could not be written is tried again."""

MAX_RETRY_DELAY: Final = 8.0
"""Seconds between tries of a node after errors that should not be, at most: it begins with one, and doubles that."""

SETTLE_SECONDS: Final = 5.0
"""For what somebody said through another connection to have its place, when it comes back; a client waits for 10."""

APPEND_TRIES: Final = 5
"""To append what comes after lines that a backplane has lost; by then it is known whether all has begun anew."""

READ_AT_ONCE: Final = 64
"""Entries of a stream."""

AHEAD_SECONDS: Final = 2.0
"""For members to catch up with what comes from other nodes, before who is behind is dropped instead: else one of them
would hold up all others in the room by any flood."""

READ_AHEAD: Final = 16
"""Of these, waiting for members who are behind, before no more of this stream are read."""

STORE_SECONDS: Final = 3.0
"""For a backplane to answer."""

STORE_WAIT_SECONDS: Final = 1.0
"""For something to come on it, before it is asked again."""

SESSION_SECONDS: Final = 7 * 24 * 3600
"""For which a backplane keeps rooms where nobody says anything, and how much each has said."""

RETRY_SECONDS: Final = 600
"""For which it keeps what is only needed to recognise a command that comes again."""

LEASE_SECONDS: Final = 8.0
"""For which a node counts as alive after a sign of life, and so nobody else gets its users' names."""

BEAT_SECONDS: Final = 2.0
"""Between two such signs."""

SWEEP_SECONDS: Final = 60.0
"""Between two looks of each node for names of nodes that are dead."""

SWEPT_AT_ONCE: Final = 1000
"""Names looked at, about."""

DEAD_NODE_SECONDS: Final = 600.0
"""After which a node that is not alive is forgotten, with its names; until then it may come back to them."""

INBOX_MESSAGES: Final = 10_000
"""That wait for a node; past that the oldest is lost."""

MAX_REMOTE_REQUESTERS: Final = 4096
"""Users of other nodes with requests to users of this one; past that who asked longest ago is forgotten."""

REMOTE_REQUESTER_SECONDS: Final = 300.0
"""After which who has asked for nothing more is: longer than any request may take."""

CHECKED_AT_ONCE: Final = 500
"""Names of a node whose leases are looked up in one step."""

KEPT_LINES: Final = 1_000_000
"""Of each room, kept on the disk if not told otherwise."""

KEPT_SIZE: Final = 1024 * 1024 * 1024
"""Of all rooms together, the same in bytes."""

MIN_KEPT_SIZE: Final = 1024 * 1024
"""The least that these can be told to be."""

KEPT_ROOMS: Final = 65_536
"""Rooms of which nothing is kept but their place, before that is forgotten too."""

TRIMMED_AT_ONCE: Final = 1000
"""Entries forgotten in one step, so that no commit takes long."""

EXPIRY_SECONDS: Final = 60.0
"""Between two looks for what is too old to be kept."""

CLOCK_JUMP_SECONDS: Final = 300.0
"""A step of the clock that makes it doubtful. ntpd gives up at 1,000 s (ntpd(8))."""

CLOCK_GAP_SECONDS: Final = 86_400.0
"""Time without a message, before a start, that makes the clock doubtful."""

CLOCK_TRIAL_SECONDS: Final = 3600.0
"""Time for which a doubtful clock has to run evenly before anything is deleted by it."""

DATA_LOCK_SECONDS: Final = 1.0
"""For another program that reads or copies the file to be done with it."""

MAX_ROOMS: Final = 1024
"""Rooms of a server; past that the one that was left longest ago is forgotten."""

ROOMS_LISTED: Final = 16
"""Of these, told in one record: their names, spelled in any script, fit into a line."""

JOIN_GRACE_SECONDS: Final = 2.0
"""Age of the lines that a new member hears first, so that clients that start at one moment hear all of each other."""

JOIN_GRACE_SIZE: Final = 64 * 1024
"""Bytes of them, at most; in a flood the last of them."""

RECENT_ENTRIES: Final = 100
"""Entries of a room's stream looked at for their age when a node opens it."""

MAX_JOIN_GRACE: Final = 60.0
"""Seconds that an operator may ask for; for more there is the history that a client asks for."""

MAX_HISTORY: Final = 10_000
"""Lines that a client can ask for of what was said before it came."""

MAX_CERTIFICATE: Final = 2048
"""A client's own, in DER; those that are made here have 217 bytes."""

MAX_NAMES: Final = 100_000
"""Names that one server's users own in all."""

MAX_NAMES_EACH: Final = 8
"""Names that one key owns on one server."""

FAILURES: Final = 16
"""Attempts from one network, this machine excepted, to enter as somebody that fail within `FAILURE_SECONDS`, before the
next are refused unheard. fail2ban's default is 5 in 10 minutes."""

FAILURE_SECONDS: Final = 60.0
"""That such an attempt counts."""

MAX_FAILING: Final = 4096
"""Networks whose failures are counted; past that the one that failed longest ago is forgotten."""

REGISTRY_SECONDS: Final = 4.0
"""For who may enter to be known, while another program has the file or others are before it; a client waits for 10."""

REGISTRY_LOCK_SECONDS: Final = 1.0
"""Of these, for another program to be done with the file."""

BAN_SECONDS: Final = 2.0
"""Between two looks for new bans; each is one comparison of numbers."""

INVITE_HOURS: Final = 72
"""That an invitation is good for, unless told otherwise."""

MAX_UNSENT: Final = 128 * 1024
"""What the system keeps of what is written to one member and not sent yet (TCP_NOTSENT_LOWAT). Else it takes megabytes,
in which a message waits behind a flood, and which no watermark counts."""

MAX_DEBTS: Final = 4096
"""Networks of members who have left with a debt; past that the one that left longest ago is forgotten."""

LISTEN_BACKLOG: Final = 1024
"""Connections that the kernel completes before they are accepted; nginx asks for 511."""

HELLO_SECONDS: Final = 30.0
"""From connecting to the first whole line. sshd's LoginGraceTime is 120, ngIRCd's PongTimeout 20."""

FLUSH_SECONDS: Final = 2.0
"""For last words to leave when a connection or the server ends."""

KEEPALIVE_SECONDS: Final = 60
"""Silence before a connection is probed for life."""

KEEPALIVE_INTERVAL: Final = 15
"""Between probes."""

KEEPALIVE_PROBES: Final = 6
"""Unanswered probes before a peer counts as gone."""

DEAD_SECONDS: Final = KEEPALIVE_SECONDS + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES
"""After which a peer that no longer answers is found, whether something was on its way to it or not."""

# --- files ------------------------------------------------------------------------------------

MAX_REQUESTS: Final = 256
"""File requests of one user that may wait for their owners at once."""

MAX_WANTS: Final = 64
"""Requests that one owner is asked to answer at once; the next wait in the server. It serves as many files at once."""

MAX_WANTS_EACH: Final = 16
"""Of these, those of one requester."""

ASK_COST: Final = 512
"""Bytes that a request for a file counts for more than its line: what it makes the server and the owner send."""

ANSWER_SIZE: Final = 160
"""Bytes, besides `LINE_COST`, that an owner's answer to a request does not count for, because its requester pays; the
longest answer of this package's client has about as many."""

RETURN_SECONDS: Final = 10.0
"""For an owner that lost its connection to come back, while its files are asked for; by `RECONNECT_DELAYS` a client has
tried three times by then."""

MAX_ABSENT: Final = 4096
"""Such owners; past that the one that left longest ago is forgotten."""

ANSWER_SECONDS: Final = 10.0
"""For an owner to say whether it has a file."""

TICKET_SECONDS: Final = 60.0
"""For a ticket to be used, from when it was made."""

HANDSHAKE_SECONDS: Final = 10.0
"""For the two ends of a data connection to agree on how to encrypt it."""

MEET_SECONDS: Final = 10.0
"""For the second side of a relayed transfer to join the first."""

MAX_RELAYS: Final = 1024
"""Relayed transfers at once: two sockets and two pipes each."""

MAX_RELAYS_EACH: Final = 64
"""Relayed transfers of one user at once, in either role: as many as a client serves."""

DRAIN_SECONDS: Final = 30.0
"""For relayed transfers to be done when the server is told to end; systemd kills after 90."""

MAX_HOST_ADDRESSES: Final = 16
"""Addresses of one host that are tried. At `ATTEMPT_DELAY` apart, all of them are within `CONNECT_SECONDS`."""

RESOLVE_SECONDS: Final = 10.0
"""For the name of a host to be looked up. A resolver goes on to the next name server after 5 (resolv.conf(5))."""

ATTEMPT_DELAY: Final = 0.25
"""Between two attempts to connect to addresses of one host, while none has succeeded (RFC 8305, section 5)."""

DIRECT_SECONDS: Final = 3.0
"""For an owner's listener to accept, before the relay is asked; happy eyeballs give up in seconds too."""

STALL_SECONDS: Final = 30.0
"""Without a byte taken by who receives, or `SLOWEST_STEP` coming from who sends, after which a transfer is given up.
rsync daemons are commonly set to 60."""

PUBLISH_SECONDS: Final = 120.0
"""For a requester to bring a file of any size to its disk, and say that it has it."""

RELAY_IDLE_SECONDS: Final = 150.0
"""Without one byte either way, after which a relay is closed: longer than the two ends themselves would wait."""

MAX_UPLOADS: Final = 64
"""Files that a client serves at once."""

CONSENT_SECONDS: Final = 60.0
"""For an owner's user to say whether somebody may have a file, before the requester gives up."""

CONSENT_STEP: Final = 2.0
"""Between two looks whether that was said."""

MAX_ASKED: Final = 256
"""Questions to a user that can still be answered again; past that the oldest answer stays."""

MAX_QUESTIONS: Final = 16
"""People about whom an owner's user is still to be asked; past that nobody is added, until one gives up."""

MAX_STRANGERS: Final = 64
"""Connections to a client's listener that have not shown a ticket yet; past that the oldest has to go."""

MAX_UPLOADS_EACH: Final = 16
"""Files that one requester may be fetching from a client at once, so that no one holds all places."""

MAX_WANTED: Final = 100_000
"""Files that one run of the client may have asked for and not have yet; each waits in a few hundred bytes."""

MAX_FETCHES: Final = 128
"""Of these, those that are more than a line in a list: a greenlet each."""

ASKED_AHEAD: Final = 64
"""Requests on their way or granted before there is a slot to move their files, well below what the server keeps."""

SLOWEST_STEP: Final = 64 * 1024
"""Has to come within `STALL_SECONDS`, though bytes may trickle: 2 KiB/s."""

DOWNLOADS: Final = 8
"""Files one client fetches at once, unless told otherwise; the rest wait in order. Browsers open 6 connections."""

MAX_DOWNLOADS: Final = MAX_UPLOADS_EACH
"""The most that it can be told; more from one owner would be refused there."""

RETRY_DELAYS: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses before a transfer that was lost is tried again; after the last, it has failed. Progress starts them anew."""

MAX_ADDRESSES: Final = 8
"""Tried for one route to an owner; each that does not answer costs seconds."""

MAX_ALGORITHMS: Final = 8
"""Digests that one side may say it has."""

MAX_ALGORITHM_NAME: Final = 32
"""Characters of such a name."""

WAIT_SECONDS: Final = 3.0
"""Between the signs of life of an owner that reads again what the requester has already."""

SLOWEST_DISK: Final = 4 * 1024 * 1024
"""Bytes a second at which an owner has to read that part; a hard disk with a hundred other readers is as slow."""

ABORT_SECONDS: Final = 1.0
"""For a thread that receives to notice that it is over; it takes longer only if the disk hangs."""

FILE_SECONDS: Final = 5.0
"""For a file system to open or look up one file, before it counts as hung; half of what an owner has to answer."""

OFFER_ORDER_SECONDS: Final = 0.2
"""Seconds that an owner's answer waits for the one before it, so that a file that hangs holds up no others for long."""

FILE_THREADS: Final = 4
"""Threads for such calls of one kind, and so the most that a hung file system can hold."""

MAX_HUNG: Final = 8
"""Threads that hang on a file system where a file was to be written, before nothing more is fetched."""

DISK_SECONDS: Final = 60.0
"""For a disk to take what is written to one file, beside the time for reading or writing it at `SLOWEST_DISK`."""

MAX_PARTIALS: Final = 32
"""Interrupted downloads kept in one directory to be resumed; past that the oldest goes."""

TIDY_SECONDS: Final = 60.0
"""Between two looks for old ones, which read the whole directory."""

PARTIAL_SECONDS: Final = 7 * 24 * 3600.0
"""For which they are kept. Browsers and rsync's --partial-dir keep them for ever."""

CHUNK: Final = 1024 * 1024
"""Moved in one step on a hub; by `sendfile`, which copies nothing, still less than a millisecond."""

BLOCK: Final = 2 * 1024 * 1024
"""Received, digested and written in one step on a thread; smaller steps take longer in all."""

HOLE: Final = 4 * 1024
"""Zeros received that are not written, so that a sparse file stays sparse: the usual block of a file system."""

WRITTEN_BEHIND: Final = 16 * 1024 * 1024
"""Received before the disk begins to get it; else all of it would wait for the end, and then somebody for the disk."""

SEALED: Final = 256 * 1024
"""Sealed or opened in one step on a thread: it is copied several times, and more would leave the processor's cache."""

DIGESTED_AHEAD: Final = 4 * 1024 * 1024
"""Digested by a thread while the same bytes are sent, so that the disk is read once."""

PIPE_SIZE: Final = 1024 * 1024
"""The most asked for a relay's pipe; the largest Linux grants by default (pipe(7), pipe-max-size)."""

PIPES_SIZE: Final = 32 * 1024 * 1024
"""For all of a relay's pipes; half of what Linux grants one user (pipe(7), pipe-user-pages-soft)."""

BULK: Final = 256 * 1024
"""As much at once, and a relay's source is asked to bring no less; a quarter of its pipe."""

MIN_STEP: Final = 16 * 1024
"""The least that a stream is moved at once, however small its share."""

MIN_RATE: Final = 160 * 1024
"""Bytes a second, the lowest limit: the share of one of `MAX_UPLOADS` is still no stalled transfer."""

MAX_OFFERS: Final = 1024
"""Tickets that a client honours at once; past that the oldest is forgotten."""

DIGEST_THREADS: Final = 2
"""Threads of a client that digest what it sends."""

LOCK_SECONDS: Final = 10.0
"""For another program that is publishing into the same directory to be done."""

MAX_BACKUPS: Final = 999
"""Numbered backups of one name, before a new one is refused."""

# --- the client -------------------------------------------------------------------------------

CONNECT_SECONDS: Final = 10.0
"""For the server to accept and welcome."""

RECONNECT_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before each try to come back to a server that is gone; the last again and again. IRC clients wait as long."""

RECONNECT_JITTER: Final = 0.25
"""Of each, more or less, so that not all come back at once."""

AWAY_SECONDS: Final = 60.0
"""That what needs a connection waits for there to be one again."""

SAID_AT_ONCE: Final = 64
"""Messages in one write, when many wait; each has at most `MAX_LINE` bytes."""

MAX_UNACKNOWLEDGED: Final = 1000
"""Messages that were said and not acknowledged, before more have to wait."""

MAX_UNACKNOWLEDGED_SIZE: Final = 1024 * 1024
"""The bytes of these."""

SEND_SECONDS: Final = 30.0
"""Without the server taking one byte, after which it counts as gone."""

WAITING_SECONDS: Final = 10.0
"""Between two notes that messages wait: well below the next, because a server that cannot keep what it reads may read
nothing, and so not answer."""

HEARTBEAT_SECONDS: Final = 20.0
"""Without a byte from the server, after which it is asked whether it is there; IRC clients ask after 30 to 90."""

PONG_SECONDS: Final = 10.0
"""For it to answer, or to say anything else, before it counts as gone."""

SHOWN_NAMES: Final = 5
"""Of the files in a home directory, those that are named to who shares it."""

GOODBYE_SECONDS: Final = 3.0
"""For what was typed to reach the server, and what was received to reach standard output, when a client ends."""

MAX_INBOX: Final = 16 * 1024 * 1024
"""Received and not yet read by the program, before newer messages are dropped and counted."""

MAX_UNWRITTEN: Final = 256 * 1024
"""Given to standard output and not yet taken by it, before whoever writes more has to wait."""

FULL_SECONDS: Final = 1.0
"""For standard error to take what is left at the end; a pipe that is read takes it at once."""

MAX_UNTOLD: Final = 256 * 1024
"""Bytes for standard error that nobody takes, before further lines are dropped and counted. A pipe holds 64 KiB more
(pipe(7))."""

SHOWN_AFTER_SECONDS: Final = 0.5
"""A file that takes no longer gets no live line; a wait of up to a second breaks nobody's thought (Nielsen, 1993)."""

REFRESH_SECONDS: Final = 0.25
"""Between two looks at what moves; rich's live displays have the same."""

RATE_SAMPLES: Final = 20
"""Looks that a rate is taken over: 5 seconds, as curl's."""

FOOTER_ROWS: Final = 4
"""Of a terminal, for live lines, if they are no more than a third of it; the menu has four lines too."""

FOOTER_CELLS: Final = 100
"""Of a live line. So all of them stay below the 2 KiB that Linux writes to a terminal in one piece."""

MIN_SCREEN_ROWS: Final = 6
"""A terminal with fewer has no room for live lines."""

MIN_SCREEN_COLUMNS: Final = 20
"""A terminal with fewer has none either."""
