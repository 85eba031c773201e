/* What the kernel alone takes: one write for each member and piece, and nothing else. */

#define _GNU_SOURCE
#include "sockets.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FRAMES = 1024, /* of a pace, in one piece at most */
    PATIENCE = 10000,
};

static int write_all(int fd, const char *data, size_t size)
{
    struct words words = {data, size, 0};
    struct pollfd full = {.fd = fd, .events = POLLOUT};
    while (words.sent < size) {
        size_t before = words.sent;
        if (push(fd, &words) < 0 || (words.sent == before && poll(&full, 1, PATIENCE) < 1))
            return -1;
    }
    return 0;
}

static int write_to_each(const int *members, int count, const char *data, size_t size)
{
    for (int i = 0; i < count; i++)
        if (write_all(members[i], data, size) < 0)
            return -1;
    return 0;
}

/* The piece to each, so many times; -1 if somebody did not take it. */
int bare_burst(const int *members, int count, const char *piece, size_t size, int times)
{
    for (int i = 0; i < times; i++)
        if (write_to_each(members, count, piece, size) < 0)
            return -1;
    return 0;
}

static void wait_until(double moment)
{
    double early = moment - now();
    struct timespec t = {.tv_sec = (time_t)early, .tv_nsec = (long)((early - (time_t)early) * 1e9)};
    if (early > 0)
        nanosleep(&t, NULL);
}

/* To each, as one piece, the messages that are due, as in pace.c; -1 if somebody did not take them. */
int bare_pace(const int *members, int count, const char *frame, size_t size, size_t stamp_at, double rate,
              double seconds)
{
    char *piece = malloc(size * FRAMES);
    int broken = 0;
    double begin = now(), due;
    for (size_t sent = 0; !broken && sent / rate < seconds;) {
        int frames = 0;
        wait_until(begin + sent / rate);
        for (; frames < FRAMES && (due = sent / rate) < seconds && begin + due <= now(); frames++, sent++) {
            memcpy(piece + frames * size, frame, size);
            stamp(piece + frames * size + stamp_at, begin + due);
        }
        broken = write_to_each(members, count, piece, frames * size) < 0;
    }
    free(piece);
    return broken ? -1 : 0;
}
