/* Paced messages. Each carries the moment when it was due, as MARK and digits, and each delivery gives one latency: a
   message that left late because the server pushed back counts from when it was due. */

#include "sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OCTAVE = 64, /* buckets of the histogram for each doubling: they are 1.6 % wide */
    BUCKETS = OCTAVE * 36,
};

#define LOOK 1e-3 /* seconds until a speaker whose socket was full is looked at again, and unwatched members */
#define SWEEP 50e-3 /* in which all unwatched members are looked at, or sooner, when UNREAD bytes are there for each */
#define UNREAD 16384

/* The speakers, in turns, send frame at `rate` messages a second in all for so many seconds, with the stamp's digits at
   stamp_at in it; each message is heard by all members. Every so many of them, as `watched` says, is read as soon as
   something comes, and gives latencies. The others only have their deliveries counted, some milliseconds later: they
   cost much less so, and a thousand members who wake up for each message would have the generator be the bottleneck.
   The flooder, if it is not -1, sends flood as fast as it can meanwhile. What speakers and flooder hear is thrown away.
   Without speakers somebody else sends. */
struct pace {
    const int *speakers;
    int speaker_count;
    const char *frame;
    size_t size, stamp_at;
    double rate, seconds, patience;
    const int *members;
    int count, watched, flooder;
    const char *flood;
    size_t flood_size;
    uint64_t *histogram;       /* out: BUCKETS of latencies */
    size_t due, sent;          /* out: messages; what was due and not sent had no room at the server */
    size_t delivered, flooded; /* out: deliveries, bytes of the flood */
    int ended;                 /* out: members and speakers whose connection ended; they are left out then */
};

/* A member, and the beginning of a stamp whose end is still to come. */
struct listener {
    char tail[DIGITS + 1];
    int held, ended;
};

struct pacing {
    struct pace *pace;
    int poll;
    double begin;
    char *frames, *buffer;
    struct words *words; /* of each speaker */
    struct words flood;
    struct listener *listeners;
    double swept; /* of all looks at unwatched members, the moment of the next */
    int next;     /* the member it is at */
};

static int bucket(double seconds)
{
    int64_t micros = seconds < 0 ? 0 : (int64_t)(seconds * 1e6);
    if (micros < OCTAVE)
        return micros;
    int doublings = 63 - __builtin_clzll(micros) - __builtin_ctz(OCTAVE);
    int64_t place = (int64_t)doublings * OCTAVE + (micros >> doublings);
    return place < BUCKETS ? place : BUCKETS - 1;
}

static double stamped(const char *digits)
{
    int64_t micros = 0;
    for (int i = 0; i < DIGITS; i++)
        micros = micros * 10 + (digits[i] - '0');
    return micros / 1e6;
}

static int is_watched(const struct pace *pace, int i) { return (i + 1) % pace->watched == 0; }

/* Each whole stamp in what came, and in what was left of the last piece, is one delivery. */
static void note(struct pace *pace, int i, struct listener *listener, char *data, size_t size)
{
    char *p = data - listener->held, *end = data + size;
    int watched = is_watched(pace, i);
    double at = now();
    memcpy(p, listener->tail, listener->held);
    listener->held = 0;
    for (; (p = memchr(p, MARK, end - p)); p += DIGITS + 1) {
        if (end - p < DIGITS + 1) {
            listener->held = end - p;
            memcpy(listener->tail, p, listener->held);
            return;
        }
        if (watched)
            pace->histogram[bucket(at - stamped(p + 1))]++;
        pace->delivered++;
    }
}

/* Send what is left of a speaker's last message; whether nothing is. */
static int finish(struct pacing *p, int i)
{
    if (p->words[i].sent < p->pace->size)
        push(p->pace->speakers[i], &p->words[i]);
    return p->words[i].sent == p->pace->size;
}

/* Send what is due; when the next is. A speaker whose last message has not left lets the next one wait, which keeps the
   moment when it was due. */
static double speak(struct pacing *p, double t)
{
    struct pace *pace = p->pace;
    int blocked = 0;
    for (int i = 0; i < pace->speaker_count; i++)
        blocked |= !finish(p, i);
    double due = pace->sent / pace->rate;
    for (; !blocked && due <= t && pace->sent < pace->due; due = ++pace->sent / pace->rate) {
        if (!pace->speaker_count)
            continue;
        int i = pace->sent % pace->speaker_count;
        stamp(p->frames + i * pace->size + pace->stamp_at, p->begin + due);
        p->words[i].sent = 0;
        blocked = !finish(p, i);
    }
    return blocked ? t + LOOK : due;
}

static void flood(struct pacing *p, int over)
{
    struct pace *pace = p->pace;
    size_t before = p->flood.sent;
    int broken = push(pace->flooder, &p->flood) < 0;
    pace->flooded += p->flood.sent - before;
    p->flood.sent %= pace->flood_size;
    if (broken || over)
        watch_for(p->poll, pace->flooder, EPOLLIN, FLOODER);
}

/* -1 if the member's connection has ended. */
static int hear(struct pacing *p, int i)
{
    ssize_t n = recv(p->pace->members[i], p->buffer, BUFFER, MSG_DONTWAIT);
    if (n > 0)
        note(p->pace, i, &p->listeners[i], p->buffer, n);
    return n > 0 || (n < 0 && errno == EAGAIN) ? 0 : -1;
}

static void handle(struct pacing *p, struct epoll_event event, int over)
{
    uint32_t i = index_of(event);
    int n = 0;
    if (i == FLOODER && event.events & EPOLLOUT)
        flood(p, over);
    if (i < FLOODER)
        n = hear(p, i);
    else if (event.events & ~EPOLLOUT)
        n = discard(fd_of(event)) < 0 ? -1 : 0;
    if (n < 0) {
        unwatch(p->poll, fd_of(event));
        p->pace->ended += i != FLOODER;
    }
}

/* Look at as many of the unwatched members as the time since the last look asks for. */
static void sweep(struct pacing *p, double t)
{
    struct pace *pace = p->pace;
    double full = UNREAD / (pace->rate * pace->size), each = (full < SWEEP ? full : SWEEP) / pace->count;
    for (int looks = 0; looks < pace->count && p->swept <= t; looks++, p->swept += each) {
        p->next = (p->next + 1) % pace->count;
        if (!is_watched(pace, p->next) && !p->listeners[p->next].ended && hear(p, p->next) < 0)
            p->listeners[p->next].ended = 1, pace->ended++;
    }
    if (p->swept < t)
        p->swept = t; /* it was late; no need to look at anybody twice */
}

static void begin_pace(struct pacing *p)
{
    struct pace *pace = p->pace;
    char *memory = malloc(DIGITS + 1 + BUFFER);
    p->buffer = memory + DIGITS + 1; /* before it is room for what was held */
    p->frames = malloc(pace->size * pace->speaker_count + 1);
    p->words = calloc(pace->speaker_count + 1, sizeof *p->words);
    p->listeners = calloc(pace->count, sizeof *p->listeners);
    p->poll = new_poll(NULL, 0);
    for (int i = 0; i < pace->count; i++)
        if (is_watched(pace, i))
            watch(p->poll, pace->members[i], EPOLLIN, i);
    for (int i = 0; i < pace->speaker_count; i++) {
        char *frame = memcpy(p->frames + i * pace->size, pace->frame, pace->size);
        p->words[i] = (struct words){frame, pace->size, pace->size};
        watch(p->poll, pace->speakers[i], EPOLLIN, SPEAKER);
    }
    if (pace->flooder >= 0)
        watch(p->poll, pace->flooder, EPOLLIN | EPOLLOUT, FLOODER);
    p->flood = (struct words){pace->flood, pace->flood_size, 0};
    while (pace->due / pace->rate < pace->seconds)
        pace->due++;
}

static void end_pace(struct pacing *p)
{
    close(p->poll);
    free(p->buffer - DIGITS - 1), free(p->frames), free(p->words), free(p->listeners);
}

/* Until all has been delivered, some of it cannot be any more, or patience has ended after the last was due. */
static int goes_on(const struct pace *pace, double t)
{
    if (t < pace->seconds)
        return 1;
    return !pace->ended && pace->delivered < pace->count * pace->due && t < pace->seconds + pace->patience;
}

void paced(struct pace *pace)
{
    struct epoll_event events[EVENTS];
    struct pacing p = {.pace = pace};
    begin_pace(&p);
    p.begin = now();
    for (double t = 0, most = pace->watched > 1 ? LOOK : TICK; goes_on(pace, t); t = now() - p.begin) {
        double due = speak(&p, t), wait = pace->sent < pace->due ? due - (now() - p.begin) : TICK;
        int ready = wait_for(p.poll, events, wait < most ? wait : most);
        for (int e = 0; e < ready; e++)
            handle(&p, events[e], t >= pace->seconds);
        if (pace->watched > 1)
            sweep(&p, t);
    }
    end_pace(&p);
}
