/* What all loops of the load generator share. Who speaks which protocol is settled in Python, and so are buffers for
   what comes out. Nothing here waits on one socket while others have something, and every loop ends with its patience. */

#ifndef SOCKETS_H
#define SOCKETS_H

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

enum {
    EVENTS = 512,
    BUFFER = 1 << 20,
    MARK = '|', /* begins a stamp; it is in no protocol's frame around a message, nor in a name */
    DIGITS = 15,
};

#define SPEAKER UINT32_MAX /* instead of a member's index */
#define FLOODER (UINT32_MAX - 1)
#define TICK 0.01 /* seconds between two looks at the clock */

double now(void);

int watch(int poll, int fd, uint32_t events, uint32_t index);
int watch_for(int poll, int fd, uint32_t events, uint32_t index);
int unwatch(int poll, int fd);
int new_poll(const int *members, int count);
uint32_t index_of(struct epoll_event event);
int fd_of(struct epoll_event event);
int wait_for(int poll, struct epoll_event *events, double seconds);

/* Throw away what has come; its size, 0 if there is nothing now, -1 if the connection has ended. */
ssize_t discard(int fd);

/* What somebody still has to say. */
struct words {
    const char *data;
    size_t size, sent;
};

/* Send a step of it; -1 if the connection is broken. */
int push(int fd, struct words *words);

/* Write when a message was due, in microseconds, as DIGITS digits. */
void stamp(char *place, double due);

#endif
