/* Bursts: what comes is only counted, so that receiving costs as little as it can. */

#include "sockets.h"

#include <string.h>
#include <unistd.h>

/* Send data on speaker, unless that is -1, while the members receive; the seconds until each has `expected` bytes, or
   -1 if that took longer than patience or a connection ended. got[i] is what came to member i. */
double burst(int speaker, const char *data, size_t size, const int *members, int count, uint64_t expected,
             double patience, uint64_t *got)
{
    struct epoll_event events[EVENTS];
    struct words words = {data, size, 0};
    int poll = new_poll(members, count), left = count, broken = 0;
    memset(got, 0, count * sizeof *got);
    if (speaker >= 0)
        watch(poll, speaker, EPOLLOUT, SPEAKER);
    double begin = now();
    while (left && !broken && now() - begin < patience) {
        int ready = wait_for(poll, events, TICK);
        for (int e = 0; e < ready; e++) {
            uint32_t i = index_of(events[e]);
            if (i == SPEAKER) {
                broken |= push(speaker, &words) < 0;
                if (words.sent == size)
                    unwatch(poll, speaker);
                continue;
            }
            ssize_t n = discard(fd_of(events[e]));
            broken |= n < 0;
            left -= n > 0 && got[i] < expected && got[i] + n >= expected;
            got[i] += n > 0 ? n : 0;
        }
    }
    double end = now();
    close(poll);
    return left || broken ? -1 : end - begin;
}

/* Throw away what comes until for so many seconds nothing has, or patience has ended; how many connections have ended.
   got[i] is what came to member i. */
int drain(const int *members, int count, double quiet, double patience, uint64_t *got)
{
    struct epoll_event events[EVENTS];
    int poll = new_poll(members, count), ended = 0;
    memset(got, 0, count * sizeof *got);
    double begin = now(), last = begin, t;
    while ((t = now()) - last < quiet && t - begin < patience) {
        int ready = wait_for(poll, events, quiet < TICK ? quiet : TICK);
        for (int e = 0; e < ready; e++) {
            ssize_t n = discard(fd_of(events[e]));
            last = t;
            if (n < 0)
                unwatch(poll, fd_of(events[e])), ended++;
            else
                got[index_of(events[e])] += n;
        }
    }
    close(poll);
    return ended;
}
