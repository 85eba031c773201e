/* Connecting: many on their way in at once, so that the generator does not wait for the server. */

#define _GNU_SOURCE
#include "sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MOST_MARKER = 32,
    PORTS_EACH = 4096, /* one address has too few ports for many thousand, and finding a free one gets slow */
};

#define RETRY 0.02 /* seconds */

/* Connections to be made: connection i says hellos up to ends[i], and is in once it has heard the marker, or, if there
   is none, has said its hello. */
struct party {
    const char *hellos;
    const size_t *ends;
    int count, port, in_flight;
    int receive_buffer, segment; /* SO_RCVBUF and TCP_MAXSEG; 0: the system's own */
    const char *marker;
    size_t marker_size;
    double patience;
    int *fds;       /* out: the sockets, or -1 */
    double seconds; /* out: from the first connect until the last is in */
    int retried;    /* out: attempts that the server did not take up, and that were begun anew */
};

enum stage { NOWHERE, CONNECTING, WAITING, IN };

struct guest {
    enum stage stage;
    double since;
    char tail[MOST_MARKER];
    size_t held;
};

struct joining {
    struct party *party;
    struct guest *guests;
    int poll, begun, in, refused;
    char *buffer;
};

static void set_up(const struct party *party, int fd, int i)
{
    int one = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + i / PORTS_EACH);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    bind(fd, (struct sockaddr *)&source, sizeof source);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (party->receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &party->receive_buffer, sizeof(int));
    if (party->segment)
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &party->segment, sizeof(int));
}

static int begin_one(struct joining *j, int i)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(j->party->port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_up(j->party, fd, i);
    j->party->fds[i] = fd;
    j->guests[i] = (struct guest){.stage = CONNECTING, .since = now()};
    connect(fd, (struct sockaddr *)&server, sizeof server); /* what fails shows when the hello is sent */
    return watch(j->poll, fd, EPOLLIN | EPOLLOUT | EPOLLET, i);
}

static void begin_again(struct joining *j, int i)
{
    close(j->party->fds[i]);
    j->party->fds[i] = -1;
    j->guests[i].stage = NOWHERE;
    j->party->retried++;
    j->refused |= begin_one(j, i) < 0;
}

static void enter(struct joining *j, struct guest *guest)
{
    guest->stage = IN;
    j->in++;
}

static void say_hello(struct joining *j, int i)
{
    const struct party *party = j->party;
    size_t begin = i ? party->ends[i - 1] : 0, size = party->ends[i] - begin;
    ssize_t n = send(party->fds[i], party->hellos + begin, size, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return;
    if (n < 0)
        begin_again(j, i);
    else if ((size_t)n < size)
        j->refused = 1; /* a hello is a few hundred bytes: no server leaves them lying */
    else if (party->marker_size)
        j->guests[i].stage = WAITING;
    else
        enter(j, &j->guests[i]);
}

/* Whether the marker is in what came, or began in what came before. */
static int has_marker(const struct party *party, struct guest *guest, char *data, size_t size)
{
    char *begin = data - guest->held, *end = data + size;
    memcpy(begin, guest->tail, guest->held);
    if (memmem(begin, end - begin, party->marker, party->marker_size))
        return 1;
    size_t all = end - begin, keep = party->marker_size - 1;
    guest->held = all < keep ? all : keep;
    memcpy(guest->tail, end - guest->held, guest->held);
    return 0;
}

static void listen_to(struct joining *j, int i)
{
    struct guest *guest = &j->guests[i];
    ssize_t n;
    while ((n = recv(j->party->fds[i], j->buffer + MOST_MARKER, BUFFER, 0)) > 0)
        if (guest->stage == WAITING && has_marker(j->party, guest, j->buffer + MOST_MARKER, n))
            enter(j, guest);
    j->refused |= n == 0 || errno != EAGAIN;
}

/* A server whose queue is full ignores who comes, and the kernel would try again after a whole second only. */
static void retry_ignored(struct joining *j, int *oldest)
{
    double late = now() - RETRY;
    while (*oldest < j->begun && j->guests[*oldest].stage != CONNECTING)
        ++*oldest;
    for (int i = *oldest; i < j->begun; i++) {
        if (j->guests[i].stage != CONNECTING || j->guests[i].since >= late)
            continue;
        say_hello(j, i); /* it may be connected since, and its event still to come */
        if (j->guests[i].stage == CONNECTING)
            begin_again(j, i);
    }
}

static void take_part(struct joining *j)
{
    struct epoll_event events[EVENTS];
    while (j->begun < j->party->count && j->begun - j->in < j->party->in_flight && !j->refused)
        j->refused |= begin_one(j, j->begun++) < 0;
    int ready = wait_for(j->poll, events, TICK);
    for (int e = 0; e < ready && !j->refused; e++) {
        int i = index_of(events[e]);
        if (fd_of(events[e]) != j->party->fds[i])
            continue; /* it was begun again meanwhile */
        if (j->guests[i].stage == CONNECTING)
            say_hello(j, i);
        if (j->guests[i].stage > CONNECTING)
            listen_to(j, i);
    }
}

/* Connect them all, with so many on their way in at once; how many are in when all are, when one was refused, or when
   patience has ended. */
int join(struct party *party)
{
    struct joining j = {.party = party, .poll = epoll_create1(EPOLL_CLOEXEC)};
    j.guests = calloc(party->count, sizeof *j.guests);
    j.buffer = malloc(MOST_MARKER + BUFFER);
    for (int i = 0; i < party->count; i++)
        party->fds[i] = -1;
    int oldest = 0;
    double begin = now();
    while (j.in < party->count && !j.refused && now() - begin < party->patience) {
        take_part(&j);
        retry_ignored(&j, &oldest);
    }
    party->seconds = now() - begin;
    close(j.poll);
    free(j.guests), free(j.buffer);
    return j.in;
}
