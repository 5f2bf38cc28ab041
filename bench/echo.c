// SPDX-License-Identifier: Apache-2.0
/* The floor of a cached answer: what answering a datagram costs when nothing is looked up.
 *
 * One thread, one socket: wait, take up to 64 queries, turn each into an answer where it lies, send
 * them all. Two system calls a batch and a walk over the name are all there is, so that no server
 * which answers one datagram by one datagram can need much less.
 *
 * `echo ADDRESS PORT` prints `ready` once bound and runs until SIGTERM. */
#include "common.h"

enum { MESSAGE_SIZE = 1280 };

struct batch {
    uint8_t messages[BATCH_LIMIT][MESSAGE_SIZE];
    struct sockaddr_storage clients[BATCH_LIMIT];
    struct iovec parts[BATCH_LIMIT];
    struct mmsghdr headers[BATCH_LIMIT];
};

static void prepare(struct batch *batch)
{
    for (int i = 0; i < BATCH_LIMIT; i++) {
        batch->parts[i].iov_base = batch->messages[i];
        batch->headers[i].msg_hdr.msg_name = &batch->clients[i];
        batch->headers[i].msg_hdr.msg_iov = &batch->parts[i];
        batch->headers[i].msg_hdr.msg_iovlen = 1;
    }
}

/* What a receive or a send shortens is put back to the room there is. */
static int receive(int fd, struct batch *batch)
{
    for (int i = 0; i < BATCH_LIMIT; i++) {
        batch->parts[i].iov_len = MESSAGE_SIZE - ANSWER_LENGTH;
        batch->headers[i].msg_hdr.msg_namelen = sizeof batch->clients[i];
    }
    int count = recvmmsg(fd, batch->headers, BATCH_LIMIT, MSG_WAITFORONE, NULL);
    if (count < 0 && errno != EINTR) {
        fatal("recvmmsg");
    }
    return count;
}

/* Returns the answer's length, or 0 for what is not a query. An OPT record after the question goes
 * back as it came, behind the answer. */
static size_t answer(uint8_t *message, size_t length)
{
    size_t end = question_end(message, length);
    if (end == 0 || (message[2] & 0x80) != 0) {
        return 0;
    }
    memmove(message + end + ANSWER_LENGTH, message + end, length - end);
    memcpy(message + end, ANSWER_RECORD, ANSWER_LENGTH);
    message[2] |= 0x80; /* QR */
    message[3] = 0x80;  /* RA, NOERROR */
    write16(message + 6, 1);
    return length + ANSWER_LENGTH;
}

/* The headers stay with their messages: the batch is closed up where a datagram gets no answer. */
static int answer_all(struct batch *batch, int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        struct mmsghdr header = batch->headers[i];
        size_t length = answer(header.msg_hdr.msg_iov->iov_base, header.msg_len);
        if (length > 0) {
            header.msg_hdr.msg_iov->iov_len = length;
            batch->headers[i] = batch->headers[kept];
            batch->headers[kept++] = header;
        }
    }
    return kept;
}

static void send_all(int fd, struct batch *batch, int count)
{
    for (int sent = 0; sent < count;) {
        int done = sendmmsg(fd, batch->headers + sent, (unsigned)(count - sent), 0);
        sent += done > 0 ? done : 1; /* a client that is gone costs its own answer only */
    }
}

int main(int count, char **words)
{
    static struct batch batch;
    if (count != 3) {
        fatal_usage("usage: echo ADDRESS PORT");
    }
    struct endpoint endpoint = parse_endpoint(words[1], words[2]);
    int fd = bind_udp(&endpoint, 0);
    prepare(&batch);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int received = receive(fd, &batch);
        send_all(fd, &batch, answer_all(&batch, received));
    }
}
