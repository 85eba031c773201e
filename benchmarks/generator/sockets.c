#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

enum { STEP = 1 << 16 };

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int control(int poll, int how, int fd, uint32_t events, uint32_t index)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)index << 32 | (uint32_t)fd};
    return epoll_ctl(poll, how, fd, &event);
}

int watch(int poll, int fd, uint32_t events, uint32_t index) { return control(poll, EPOLL_CTL_ADD, fd, events, index); }

int watch_for(int poll, int fd, uint32_t events, uint32_t index)
{
    return control(poll, EPOLL_CTL_MOD, fd, events, index);
}

int unwatch(int poll, int fd) { return control(poll, EPOLL_CTL_DEL, fd, 0, 0); }

int new_poll(const int *members, int count)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++)
        watch(poll, members[i], EPOLLIN, i);
    return poll;
}

uint32_t index_of(struct epoll_event event) { return event.data.u64 >> 32; }

int fd_of(struct epoll_event event) { return (int)(uint32_t)event.data.u64; }

/* epoll_wait(2) counts in milliseconds, which is too coarse for a pace, and spinning would take the processor from the
   server. */
int wait_for(int poll, struct epoll_event *events, double seconds)
{
    struct timespec t = {0};
    if (seconds > 0)
        t.tv_sec = (time_t)seconds, t.tv_nsec = (long)((seconds - t.tv_sec) * 1e9);
    int ready = epoll_pwait2(poll, events, EVENTS, &t, NULL);
    return ready < 0 ? 0 : ready; /* a signal: Python handles it when the loop has ended */
}

/* MSG_TRUNC has the kernel drop the bytes without copying them (tcp(7)). */
ssize_t discard(int fd)
{
    ssize_t n = recv(fd, NULL, 1 << 30, MSG_TRUNC | MSG_DONTWAIT);
    return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : -1;
}

int push(int fd, struct words *words)
{
    size_t left = words->size - words->sent;
    ssize_t n = send(fd, words->data + words->sent, left < STEP ? left : STEP, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        words->sent += n;
    return n < 0 && errno != EAGAIN ? -1 : 0;
}

void stamp(char *place, double due)
{
    int64_t micros = (int64_t)(due * 1e6);
    for (int i = DIGITS - 1; i >= 0; i--, micros /= 10)
        place[i] = '0' + micros % 10;
}
